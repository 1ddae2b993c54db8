// Every sentence that the portal shows, by theme. What the server says is shown as it says it.

import { computers } from "./words/computers";
import { frame } from "./words/frame";
import { functions } from "./words/functions";
import { jobs } from "./words/jobs";
import { money } from "./words/money";

export const words = { ...frame, ...functions, ...jobs, ...computers, ...money };
