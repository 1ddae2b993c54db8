// What is looked up by a name that the server may add to.

export type Names = Record<string, string>;
