// A change that somebody asked for: that it is under way, and why it was refused.

import { Refused } from "./api";

export class Action {
  isBusy = $state(false);
  refused = $state.raw<Refused | undefined>(undefined);

  /** Does nothing while it is under way already. */
  async run<T>(work: () => Promise<T>): Promise<T | undefined> {
    if (this.isBusy) return undefined;
    this.isBusy = true;
    this.refused = undefined;
    try {
      return await work();
    } catch (error) {
      this.refused = error instanceof Refused ? error : new Refused(0, { code: "portal.bug", message: String(error) });
      return undefined;
    } finally {
      this.isBusy = false;
    }
  }

  /** What is said of a field. */
  of(field: string): string | undefined {
    const { refused } = this;
    if (!refused) return undefined;
    return refused.fields.find((one) => one.path === field)?.message ?? (refused.field === field ? refused.message : undefined);
  }
}

/** Read out to people who do not see the change. */
export const said = $state({ text: "" });
export function say(text: string): void {
  said.text = "";
  // A text that was there before is not read again.
  setTimeout(() => (said.text = text), 30);
}
