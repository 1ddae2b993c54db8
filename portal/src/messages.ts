// Every sentence that the portal shows, by theme. What the server says is shown as it says it.

import { common } from "./words/common";
import { computers } from "./words/computers";
import { functions } from "./words/functions";
import { jobs } from "./words/jobs";
import { money } from "./words/money";

export const words = { ...common, ...functions, ...jobs, ...computers, ...money };
