// Who is signed in.

import { Refused, session as api, whenSignedOut, type Schemas, type Session } from "./api";
import { words } from "../messages";
import { listOf } from "./format";
import { live } from "./live.svelte";

class Who {
  state = $state<"asking" | "in" | "out" | "failed">("asking");
  value = $state.raw<Session | undefined>(undefined);
  refused = $state.raw<Refused | undefined>(undefined);

  get name(): string {
    return this.value?.account.name ?? "";
  }
  get isOperator(): boolean {
    return this.value?.operator === true;
  }
  get isDeveloper(): boolean {
    return this.isOperator || listOf(this.value?.account.roles).includes("developer");
  }
  may(scope: Schemas["Scope"]): boolean {
    const scopes = listOf(this.value?.scopes);
    return scopes.includes(scope) || scopes.includes("admin");
  }

  async ask(): Promise<void> {
    this.state = "asking";
    try {
      this.#enter(await api.show());
    } catch (error) {
      this.refused = error instanceof Refused ? error : new Refused(0, { code: "portal.bug", message: String(error) });
      this.state = this.refused?.status === 401 ? "out" : "failed";
    }
  }

  async open(body: Schemas["OpenPortalSession"]): Promise<void> {
    this.#enter(await api.open(body));
  }

  async close(): Promise<void> {
    await api.close();
    this.leave();
  }

  leave(): void {
    live.stop();
    this.value = undefined;
    this.state = "out";
  }

  #enter(session: Session | undefined): void {
    // Everything else hangs on who it is.
    if (typeof session?.account?.name !== "string") throw new Refused(0, { code: "portal.bad_answer", message: words.badSession });
    this.value = session;
    this.state = "in";
    live.start();
  }
}

export const who = new Who();
whenSignedOut(() => {
  if (who.state === "in") who.leave();
});
