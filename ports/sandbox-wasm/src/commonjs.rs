//! CommonJS modules as ES modules: most packages of npm are CommonJS, and the engine knows ES modules only.
//!
//! The module's text becomes a function of `module`, `exports` and `require`; what it requires by a literal name is
//! imported before it, and what it visibly exports gets a name. A name that is computed at run time is not found.

use std::collections::BTreeSet;

/// Whether a `.js` file without a word from its package is CommonJS.
pub(crate) fn looks_like(source: &str) -> bool {
    let esm = source.lines().any(|line| {
        let line = line.trim_start();
        ["import ", "import{", "import\"", "import'", "export ", "export{"]
            .iter()
            .any(|start| line.starts_with(start))
    });
    !esm && ["module.exports", "exports.", "exports[", "require("]
        .iter()
        .any(|mark| source.contains(mark))
}

/// The source on one line with the wrapper's head, so that its line numbers stay right.
pub(crate) fn wrap(path: &str, source: &str) -> String {
    let directory = path
        .rsplit_once('/')
        .map_or("/", |(directory, _)| if directory.is_empty() { "/" } else { directory });
    let mut head = String::new();
    let mut table = String::new();
    for (index, name) in required(source).iter().enumerate() {
        let name = quoted(name);
        head.push_str(&format!("import * as __require{index} from {name};"));
        table.push_str(&format!("{name}: __require{index},"));
    }
    let body = source
        .strip_prefix("#!")
        .map_or_else(|| source.to_owned(), |rest| format!("//{rest}"));
    let exports = exported(source);
    let names: String = exports
        .iter()
        .enumerate()
        .map(|(index, name)| {
            format!("const __export{index} = __value?.{name}; export {{ __export{index} as {name} }};\n")
        })
        .collect();
    format!(
        "{head}const __found = {{{table}}};\
         const __require = (name) => {{ const found = __found[name];\
         if (!found) throw new Error(`Cannot find module '${{name}}'`);\
         return found.__commonjs ? found.default : (found.default !== undefined && Object.keys(found).length === 1 ? \
         found.default : found); }};\
         const __module = {{ exports: {{}} }};\
         (function (module, exports, require, __filename, __dirname) {{{body}\n}})\
         .call(__module.exports, __module, __module.exports, __require, {}, {});\n\
         const __value = __module.exports; export default __value; export const __commonjs = true;\n{names}",
        quoted(path),
        quoted(directory),
    )
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The literal names in `require("...")`.
fn required(source: &str) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    for (at, _) in source.match_indices("require(") {
        let before = source[..at].chars().next_back();
        if before.is_some_and(|letter| letter.is_alphanumeric() || matches!(letter, '_' | '$' | '.')) {
            continue;
        }
        let rest = source[at + "require(".len()..].trim_start();
        let Some(quote) = rest.chars().next().filter(|quote| matches!(quote, '"' | '\'' | '`')) else {
            continue;
        };
        if let Some((name, after)) = rest[1..].split_once(quote)
            && after.trim_start().starts_with(')')
            && !name.is_empty()
            && !name.contains(['\n', '$', '\\'])
        {
            names.insert(name);
        }
    }
    names
}

/// The names in `exports.NAME =`, and those of a plain `module.exports = { NAME, ... }`.
fn exported(source: &str) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    for (at, _) in source.match_indices("exports.") {
        let rest = &source[at + "exports.".len()..];
        let (name, after) = rest.split_at(word_length(rest));
        let after = after.trim_start();
        if after.starts_with('=') && !after.starts_with("==") {
            names.insert(name);
        }
    }
    if let Some((_, object)) = source.split_once("module.exports = {")
        && let Some((fields, _)) = object.split_once('}')
    {
        names.extend(fields.split(',').map(|field| {
            let field = field.trim();
            &field[..word_length(field)]
        }));
    }
    names.retain(|name| is_name(name));
    names
}

fn word_length(text: &str) -> usize {
    text.find(|letter: char| !(letter.is_ascii_alphanumeric() || matches!(letter, '_' | '$')))
        .unwrap_or(text.len())
}

fn is_name(name: &str) -> bool {
    const TAKEN: [&str; 4] = ["default", "__commonjs", "__esModule", "async"];
    !name.is_empty() && !name.starts_with(|letter: char| letter.is_ascii_digit()) && !TAKEN.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literal_requires_and_visible_exports_are_found() {
        let source = "const a = require('./a'); my.require('no'); exports.one = 1; module.exports = { two, three: 3 };";
        assert_eq!(required(source).into_iter().collect::<Vec<_>>(), ["./a"]);
        assert_eq!(
            exported(source).into_iter().collect::<Vec<_>>(),
            ["one", "three", "two"]
        );
        assert!(looks_like(source));
        assert!(!looks_like("import x from 'y';\nexport default x;"));
    }

    #[test]
    fn the_first_line_of_the_source_stays_the_first() {
        let wrapped = wrap("/x.js", "throw new Error('here')");
        assert!(wrapped.lines().next().is_some_and(|line| line.contains("here")));
    }
}
