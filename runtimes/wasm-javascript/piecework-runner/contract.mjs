// Contracts other than a handler's. Their adapters are in the jail; here they are only told, so that nothing is called in the
// wrong way. `found` of runtimes/jail/contracts/contracts.cjs says which one it is.

const LAMBDA_FILES = /(^|\/)(index|lambda|lambda_function|handler)\.(m|c)?[jt]s(\.mjs)?$/;
const REQUEST_AND_RESPONSE = /^(?:async\s+)?(?:function\b[^(]*)?\(?\s*_?(req|request)\s*,\s*_?(res|response)\b/;

function isOther(target) {
  if (target === null || (typeof target !== "object" && typeof target !== "function")) return false;
  if (typeof target.fetch === "function") return true;
  if (typeof target.use === "function" && (typeof target.handle === "function" || typeof target.callback === "function")) return true;
  if (typeof target !== "function" || target.length < 2) return false;
  return REQUEST_AND_RESPONSE.test(Function.prototype.toString.call(target).slice(0, 200));
}

// Why a module is not called here, in a sentence; null where it has a handler, or nothing.
export function otherContract(module, { entry, function: name }) {
  const tell = (what) => `${what} of \`${entry}\` is no handler of \`event\` and \`context\`, and other contracts need the jail`;
  if (name) return isOther(module[name] ?? module.default?.[name]) ? tell(`\`${name}\``) : null;
  const exported = module.default;
  if (isOther(exported)) return tell("the default export");
  if (typeof exported === "function") return null;
  if (["app", "server"].some((each) => isOther(module[each] ?? exported?.[each])) || typeof module.fetch === "function") return tell("an export");
  const isLambda = LAMBDA_FILES.test(entry) && typeof (exported?.handler ?? module.handler) === "function";
  return isLambda ? tell("`handler`") : null;
}
