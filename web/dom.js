// Small helpers for the document. Values from messages only ever become text, never markup.

import { findUnseen, nameCharacter } from './format.js';

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

/** Sets an element's text if it differs: writing the same text would cost a layout and end a selection. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/**
 * Shows a value from a message, or that it is unknown (null). The style sheet adds a dash for an unknown value, so that
 * it can't be mistaken for text, and the code of each invisible character. The text itself is unchanged.
 */
export function setValue(node, value) {
  const unknown = value === null;
  if (node.textContent === (value ?? '') && node.classList.contains('unknown') === unknown) return;
  node.classList.toggle('unknown', unknown);
  node.replaceChildren(...(unknown ? [] : markUnseen(value)));
}

function markUnseen(text) {
  const parts = [];
  let end = 0;
  for (const { index, 0: character } of findUnseen(text)) {
    const mark = element('span', { className: 'unseen', textContent: character });
    mark.dataset.code = nameCharacter(character);
    parts.push(text.slice(end, index), mark);
    end = index + character.length;
  }
  parts.push(text.slice(end));
  return parts.filter((part) => part !== '');
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

/** Copies an element's text. Without access to the clipboard (plain HTTP), selects it so that the user can copy it. */
export async function copyText(node) {
  try {
    await navigator.clipboard.writeText(node.textContent);
    return 'Copied.';
  } catch {
    getSelection().selectAllChildren(node);
    return 'Selected. Press Ctrl+C or ⌘C to copy.';
  }
}
