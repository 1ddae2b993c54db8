//! Codes about functions, their versions, packages and triggers.

use piecework_model::Code;

use super::{Entry, code};

pub(super) const FUNCTIONS: &[Entry] = &[
    code(
        422,
        Code::FunctionBadCode,
        "exactly one of code and bundle is required, and the code must not be empty",
    ),
    code(
        422,
        Code::FunctionBadConcurrency,
        "the concurrency is not between 1 and 1000",
    ),
    code(
        422,
        Code::FunctionBadDisk,
        "the limit of `/tmp` is not between 1 and 1024 MiB",
    ),
    code(
        422,
        Code::FunctionBadProcesses,
        "the limit of processes and threads is not between 1 and 256",
    ),
    code(
        502,
        Code::FunctionDiskFull,
        "the run filled its part of `/tmp` and did not catch the error; deploy with a higher `--disk`",
    ),
    code(
        502,
        Code::FunctionTooManyFiles,
        "the run opened more files than it may and did not catch the error",
    ),
    code(
        502,
        Code::FunctionTooManyProcesses,
        "the run started more processes or threads than it may and did not catch the error; deploy with a higher `--processes`",
    ),
    code(
        402,
        Code::FunctionBudgetSpent,
        "the function's budget for this month is spent, or its running jobs may spend the rest; nothing ran",
    ),
    code(422, Code::FunctionBadEnv, "a variable's name or size is invalid"),
    code(
        422,
        Code::FunctionBadHandler,
        "the handler does not have the form file or file:function",
    ),
    code(
        422,
        Code::FunctionBadMemory,
        "the memory limit is not between 32 and 4096 MiB",
    ),
    code(
        422,
        Code::FunctionBadName,
        "the name is not 1 to 30 characters from a-z, 0-9 and -",
    ),
    code(422, Code::FunctionBadStreamLimit, "the stream limit is over 16384 MiB"),
    code(
        422,
        Code::FunctionBadTimeout,
        "the timeout is not between 1 and 900000 ms",
    ),
    code(
        502,
        Code::FunctionCrashed,
        "the function's process ended unexpectedly: an exit, a signal or a trap",
    ),
    code(
        409,
        Code::FunctionExists,
        "you already have a function with this name; use PUT to create a new version",
    ),
    code(422, Code::FunctionLoadFailed, "the code raised while it was imported"),
    code(422, Code::FunctionNoHandler, "the code has no handler with that name"),
    code(404, Code::FunctionNotFound, "you have no function with this id or name"),
    code(502, Code::FunctionOutOfMemory, "the run exceeded its memory limit"),
    code(
        501,
        Code::FunctionNoScheduled,
        "a schedule called a module that has no `scheduled()`; add one, or remove the trigger",
    ),
    code(
        409,
        Code::FunctionNotDeleted,
        "the function is not deleted, so there is nothing to restore",
    ),
    code(502, Code::FunctionOutputInvalid, "the output is not JSON"),
    code(
        502,
        Code::FunctionOutputTooLarge,
        "the output is larger than the limit, or the run streamed more than its stream limit",
    ),
    code(
        409,
        Code::FunctionQuarantined,
        "the version crashed too often in a row; it takes no calls until you deploy a new version or release it",
    ),
    code(
        502,
        Code::FunctionRaised,
        "the handler raised; `details` has type, message and stack",
    ),
    code(
        422,
        Code::FunctionBadCors,
        "an origin, method or header of `cors` is not valid, or `*` is combined with credentials",
    ),
    code(
        412,
        Code::FunctionChanged,
        "the function is not the one that `If-Match` names: it was changed in the meantime",
    ),
    code(
        409,
        Code::FunctionStopped,
        "the owner stopped the function; it takes no calls until it is started",
    ),
    code(
        422,
        Code::FunctionSyntaxError,
        "the code cannot be parsed; the message has file and line",
    ),
    code(
        504,
        Code::FunctionTimedOut,
        "the run exceeded its timeout and was ended",
    ),
    code(
        429,
        Code::FunctionTooMany,
        "concurrency limit reached and queue full; see Retry-After",
    ),
    code(
        422,
        Code::FunctionUnknownLanguage,
        "the language is not python or javascript",
    ),
    code(
        422,
        Code::PackagesBadRequirement,
        "requirements.txt or package.json asks for something other than named packages with versions",
    ),
    code(
        503,
        Code::PackagesBusy,
        "too many deploys, of the account or in all, wait for their packages to be resolved; see Retry-After",
    ),
    code(
        422,
        Code::PackagesDirectReference,
        "a package, or one that it depends on, is not on the package index but at a URL, in a repository or at a path",
    ),
    code(
        409,
        Code::PackagesNoJail,
        "packages are declared and the server has no working jail to resolve them in",
    ),
    code(504, Code::PackagesTimeout, "pip or npm did not finish in time"),
    code(
        409,
        Code::PackagesToolMissing,
        "the function declares packages, but pip or npm is not installed on the server",
    ),
    code(
        413,
        Code::PackagesTooLarge,
        "the resolved packages have too many bytes or files",
    ),
    code(
        422,
        Code::PackagesUnresolvable,
        "pip or npm could not get the packages; the message has its last lines",
    ),
    code(
        422,
        Code::TrafficBadWeights,
        "the split names no version or too many, or its shares are out of range or all zero",
    ),
    code(
        416,
        Code::SiteBadRange,
        "the `Range` lies outside of the file; `Content-Range` has its length",
    ),
    code(
        422,
        Code::TriggerBadSchedule,
        "the trigger's cron pattern or time zone is invalid, or the pattern never falls due",
    ),
    code(404, Code::TriggerNotFound, "the function has no trigger of this name"),
    code(409, Code::TriggerTooMany, "the account has 100 triggers; remove some"),
    code(
        422,
        Code::TypescriptTooComplex,
        "the TypeScript files are too large or too deeply nested, or took too long to translate",
    ),
    code(
        503,
        Code::TypescriptUnavailable,
        "this server cannot translate TypeScript, because it was built without the wasm interpreter; deploy JavaScript",
    ),
    code(
        422,
        Code::TypescriptUnsupported,
        "the TypeScript uses something that is more than types and is not translated; the message has file and line",
    ),
    code(404, Code::VersionNotFound, "the function has no such version"),
];
