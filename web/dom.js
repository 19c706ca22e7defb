// Small helpers around the document. Values from messages only ever become text, never markup.

export function byId(id) {
  return document.getElementById(id);
}

/** A new element with properties and children; strings become text. */
export function element(tag, properties = {}, ...children) {
  const { dataset, ...others } = properties;
  const made = Object.assign(document.createElement(tag), others);
  Object.assign(made.dataset, dataset);
  made.append(...children);
  return made;
}

/** Sets an element's text if it differs: writing the same text again would cost a layout and end a selection. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Shows a status as text; the style sheet adds glyph and colour. */
export function setStatus(node, status, label) {
  setText(node, label);
  if (node.dataset.status !== status) node.dataset.status = status;
}

/** Calls `work` once in the next animation frame, however often the returned function is called until then. */
export function oncePerFrame(work) {
  let requested = false;
  return () => {
    if (requested) return;
    requested = true;
    requestAnimationFrame(() => {
      requested = false;
      work();
    });
  };
}

/** Copies an element's text. Where the clipboard is not to be had (plain HTTP), it is selected to be copied by hand. */
export async function copyText(node) {
  try {
    await navigator.clipboard.writeText(node.textContent);
    return 'Copied.';
  } catch {
    getSelection().selectAllChildren(node);
    return 'Selected: copy it with Ctrl+C or ⌘C.';
  }
}
