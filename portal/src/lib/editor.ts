// CodeMirror, loaded when somebody opens an editor.

import { defaultKeymap, history, historyKeymap, indentLess, indentMore, redo } from "@codemirror/commands";
import { javascript } from "@codemirror/lang-javascript";
import { python } from "@codemirror/lang-python";
import { bracketMatching, HighlightStyle, indentOnInput, indentUnit, syntaxHighlighting } from "@codemirror/language";
import { EditorState, type Extension } from "@codemirror/state";
import { drawSelection, EditorView, highlightActiveLine, keymap, lineNumbers } from "@codemirror/view";
import { tags } from "@lezer/highlight";

export interface Wanted {
  text: string;
  language: string;
  label: string;
  readonly: boolean;
  change(text: string): void;
  run(): void;
  save(): void;
}

// The page's colours reach into the shadow root.
const theme = EditorView.theme({
  "&": { backgroundColor: "var(--card)", color: "var(--ink)", fontSize: "13px" },
  "&.cm-focused": { outline: "2px solid var(--accent)", outlineOffset: "-2px" },
  ".cm-scroller": { fontFamily: "var(--mono)", lineHeight: "1.55", minHeight: "240px", maxHeight: "62vh", overflow: "auto" },
  ".cm-content": { padding: "10px 0", caretColor: "var(--ink)" },
  ".cm-gutters": { backgroundColor: "var(--card)", color: "var(--soft)", border: "0", paddingLeft: "6px" },
  ".cm-activeLine, .cm-activeLineGutter": { backgroundColor: "color-mix(in srgb, var(--sunk) 60%, transparent)" },
  ".cm-cursor": { borderLeftColor: "var(--ink)" },
  "&.cm-focused > .cm-scroller > .cm-selectionLayer .cm-selectionBackground, .cm-selectionBackground": {
    backgroundColor: "var(--accent-soft)",
  },
  ".cm-matchingBracket": { backgroundColor: "var(--accent-soft)", outline: "0" },
});
const colours = HighlightStyle.define([
  { tag: [tags.keyword, tags.operatorKeyword, tags.controlKeyword, tags.definitionKeyword], color: "var(--accent)", fontWeight: "600" },
  { tag: [tags.string, tags.special(tags.string), tags.regexp], color: "var(--good)" },
  { tag: [tags.number, tags.bool, tags.null], color: "var(--info)" },
  { tag: [tags.comment, tags.docComment], color: "var(--soft)", fontStyle: "italic" },
  { tag: [tags.function(tags.definition(tags.variableName)), tags.function(tags.variableName)], color: "var(--warn)" },
]);

function languageOf(name: string): Extension {
  if (name === "python") return [python(), indentUnit.of("    ")];
  if (name === "json") return javascript();
  return [javascript({ typescript: true }), indentUnit.of("  ")];
}

export function open(root: ShadowRoot, wanted: Wanted): { set(text: string): void; destroy(): void } {
  const extensions: Extension[] = [
    lineNumbers(),
    history(),
    drawSelection(),
    indentOnInput(),
    bracketMatching(),
    highlightActiveLine(),
    syntaxHighlighting(colours),
    theme,
    languageOf(wanted.language),
    EditorView.lineWrapping,
    EditorView.contentAttributes.of({ "aria-label": wanted.label }),
    keymap.of([
      {
        key: "Mod-Enter",
        run: () => {
          wanted.run();
          return true;
        },
      },
      {
        key: "Mod-s",
        preventDefault: true,
        run: () => {
          wanted.save();
          return true;
        },
      },
      // Not Tab, which leads on to the next field.
      { key: "Mod-]", run: indentMore },
      { key: "Mod-[", run: indentLess },
      { key: "Mod-Shift-z", run: redo },
      ...defaultKeymap.filter((binding) => binding.key !== "Mod-Enter"),
      ...historyKeymap,
    ]),
    EditorView.updateListener.of((update) => {
      if (update.docChanged) wanted.change(update.state.doc.toString());
    }),
  ];
  if (wanted.readonly) extensions.push(EditorState.readOnly.of(true));
  const parent = document.createElement("div");
  root.append(parent);
  const view = new EditorView({ parent, root, state: EditorState.create({ doc: wanted.text, extensions }) });
  return {
    set: (text) => view.dispatch({ changes: { from: 0, to: view.state.doc.length, insert: text } }),
    destroy: () => {
      view.destroy();
      parent.remove();
    },
  };
}
