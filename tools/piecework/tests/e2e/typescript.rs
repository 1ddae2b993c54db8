//! TypeScript as it is written, on both walls.

use std::process::Command;

use piecework_model::Code;
use serde_json::json;

use crate::machine::{Machine, has, piecework, skipped};

fn up() -> (Machine, tempfile::TempDir) {
    let directory = tempfile::tempdir().expect("a directory");
    let machine = Machine::start(directory.path());
    (machine, directory)
}

fn cli(machine: &Machine) -> Command {
    let mut command = piecework();
    command
        .env("PIECEWORK_URL", &machine.url)
        .env("PIECEWORK_TOKEN", &machine.token)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    command
}

const WALLS: [&str; 2] = ["wasm", "jail"];

#[tokio::test(flavor = "multi_thread")]
async fn the_sample_answers_on_both_walls_and_the_choice_is_said() {
    let (machine, directory) = up();
    for wall in WALLS {
        let name = format!("hello-{wall}");
        let said = cli(&machine)
            .args(["deploy", "samples/hello-typescript", "--name", &name, "--sandbox", wall])
            .output()
            .expect("it runs");
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(
            said.status.success(),
            "{text} {}",
            String::from_utf8_lossy(&said.stderr)
        );
        assert!(
            text.contains(&format!("in {wall}")) && text.contains("typescript: types are removed from main.ts"),
            "{text}"
        );
        let called = machine.call(&name, json!({"name": "Ada", "hour": 20})).await.ok();
        assert_eq!(
            called["output"],
            json!({"message": "Good evening, Ada!", "part": 2}),
            "{wall}: {called}"
        );
        let folder = directory.path().join(&name);
        let read = cli(&machine)
            .args(["code", &name, "--into"])
            .arg(&folder)
            .status()
            .expect("it runs");
        let wrote = |path: &str| std::fs::read_to_string(folder.join(path)).ok();
        assert!(read.success() && wrote("lib/greeting.ts").is_some_and(|text| text.contains("export enum Part")));
        assert_eq!(wrote("main.ts.mjs"), None, "what the deploy has added is left out");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_file_of_any_name_and_an_error_at_its_own_line() {
    let (machine, directory) = up();
    let file = directory.path().join("shout.ts");
    let code = "interface Event {\n  text: string;\n}\n\nexport default (event: Event): string => {\n  if (!event.text) throw new Error('nothing to shout');\n  return event.text.toUpperCase() as string;\n};\n";
    std::fs::write(&file, code).expect("written");
    for wall in WALLS {
        let said = cli(&machine)
            .arg("deploy")
            .arg(&file)
            .args(["--name", wall, "--sandbox", wall])
            .output()
            .expect("it runs");
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        let called = machine.call(wall, json!({"text": "hey"})).await.ok();
        assert_eq!(called["output"], "HEY");
        let failed = machine.call(wall, json!({})).await;
        failed.refused(502, Code::FunctionRaised);
        let details = failed.body["error"]["details"].to_string();
        assert!(
            details.contains("shout.ts:6") && !details.contains(".mjs"),
            "{wall}: {details}"
        );
    }
    let view = machine.get("/functions/wasm").await.ok();
    assert_eq!(view["handler"], "shout.ts");
    let read = cli(&machine).args(["code", "wasm"]).output().expect("it runs");
    assert_eq!(String::from_utf8_lossy(&read.stdout), code, "it is what was sent");
    let none = machine.get("/functions/wasm/code?version=7").await;
    none.refused(404, Code::VersionNotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn tsx_uses_the_jsx_runtime_that_its_settings_name_and_says_if_there_is_none() {
    let (machine, directory) = up();
    let folder = directory.path().join("page");
    let put = |path: &str, text: &str| {
        let path = folder.join(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(path, text).expect("written");
    };
    put(
        "index.tsx",
        "interface Props {\n  name: string;\n}\n\nconst Greeting = ({ name }: Props) => <p class=\"a\">Hello, {name}!</p>;\n\n\
         export default (event: Props): string => {\n  if (!event.name) throw new Error('nobody');\n  return String(<><Greeting name={event.name} /><br /></>);\n};\n",
    );
    put(
        "jsx/jsx-runtime.ts",
        "type Kind = string | symbol | ((props: any) => string);\nexport const Fragment = Symbol('fragment');\n\
         export function jsx(kind: Kind, { children, ...props }: any): string {\n  if (typeof kind === 'function') return kind({ children, ...props });\n  \
         const inner = [children].flat().join('');\n  if (kind === Fragment) return inner;\n  \
         const attributes = Object.entries(props).map(([name, value]) => ` ${name}=\"${value}\"`).join('');\n  \
         return `<${String(kind)}${attributes}>${inner}</${String(kind)}>`;\n}\nexport const jsxs = jsx;\n",
    );
    let deploy = |name: &str, wall: &str| {
        let said = cli(&machine)
            .arg("deploy")
            .arg(&folder)
            .args(["--name", name, "--sandbox", wall])
            .output();
        let said = said.expect("it runs");
        (
            said.status.success(),
            String::from_utf8_lossy(&said.stderr).into_owned(),
        )
    };
    let (deployed, said) = deploy("none", "wasm");
    assert!(
        !deployed && said.contains("react/jsx-runtime"),
        "by default it is React's, which is not here: {said}"
    );
    put(
        "tsconfig.json",
        "{\n  // ours\n  \"compilerOptions\": { \"jsxImportSource\": \"./jsx\" }\n}\n",
    );
    for wall in WALLS {
        let (deployed, said) = deploy(wall, wall);
        assert!(deployed, "{said}");
        let called = machine.call(wall, json!({"name": "Ada"})).await.ok();
        assert_eq!(called["output"], "<p class=\"a\">Hello, Ada!</p><br></br>", "{wall}");
        let failed = machine.call(wall, json!({})).await;
        let details = failed.body["error"]["details"].to_string();
        assert!(details.contains("index.tsx:8"), "{wall}: {details}");
    }
    // By a function of the file's own.
    let code = "/** @jsx h */\n/** @jsxFrag Row */\nconst Row = 'row';\nconst h = (kind: string, props: object | null, ...inner: string[]) => `${kind}(${inner})`;\n\
                export default () => <><b>1</b><b>2</b></>;\n";
    let file = directory.path().join("own.tsx");
    std::fs::write(&file, code).expect("written");
    let said = cli(&machine).arg("deploy").arg(&file).output().expect("it runs");
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    assert_eq!(machine.call("own", json!(null)).await.ok()["output"], "row(b(1),b(2))");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_translated_is_refused_by_a_code_and_a_line() {
    let (machine, _directory) = up();
    let deploy = |code: &'static str| machine.deploy_with("f", "typescript", code, json!({}));
    deploy("let x: = 1;\n").await.refused(422, Code::FunctionSyntaxError);
    let decorated = deploy("\n@sealed\nclass A {}\nexport default () => 1;\n").await;
    decorated.refused(422, Code::TypescriptUnsupported);
    assert!(
        decorated.body["error"]["message"]
            .as_str()
            .is_some_and(|said| said.contains("main.ts line 2"))
    );
    let deep: &'static str = Box::leak(format!("export default {}1", "[".repeat(200_000)).into_boxed_str());
    let refused = deploy(deep).await;
    assert!(
        matches!(
            refused.code(),
            Some(Code::TypescriptTooComplex | Code::FunctionSyntaxError)
        ),
        "{:?}",
        refused.code()
    );
    let view = deploy("export default (event: number): number => event + 1;\n")
        .await
        .ok();
    assert_eq!(
        (&view["language"], &view["handler"]),
        (&json!("javascript"), &json!("main.ts"))
    );
    assert_eq!(machine.call("f", json!(2)).await.ok()["output"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn contracts_are_found_in_typescript() {
    if !has("node") {
        return skipped("no node");
    }
    let (machine, _directory) = up();
    let code = "type Env = Record<string, string>;\nexport default {\n  async fetch(request: Request, env: Env): Promise<Response> {\n    return new Response(`${request.method} ${new URL(request.url).pathname}`);\n  },\n};\n";
    let view = machine
        .deploy_with(
            "app",
            "typescript",
            code,
            json!({"handler": "worker.ts", "public": true}),
        )
        .await
        .ok();
    assert_eq!(
        (&view["contract"], &view["handler"]),
        (&json!("fetch"), &json!("worker.ts:default@fetch"))
    );
    let body = reqwest::get(format!("{}/fn/operator/app/a", machine.url))
        .await
        .expect("answered")
        .text()
        .await;
    assert_eq!(body.expect("text"), "GET /a");
}
