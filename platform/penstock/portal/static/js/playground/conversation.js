// A conversation with one model or two: turns, each a message of the user and, on each side, what came of it.

import { Answer } from "./answer.js";
import { preview } from "./images.js";
import { body } from "./setting.js";

export class Conversation {
  // `told`: {setting(), changed(), settled()}; setting() gives {values, sides: [choice, …]}, or null when it is wrong.
  constructor(place, told) {
    this.place = place;
    this.told = told;
    this.turns = [];
  }

  get running() {
    return this.answers().some((answer) => answer.running);
  }

  answers() {
    return this.turns.flatMap((turn) => turn.sides.flatMap((side) => side.answers));
  }

  stop() {
    for (const answer of this.answers()) if (answer.running) answer.stop();
  }

  // Takes a message to every side; false when the setting is wrong, and nothing was done.
  send(text, images) {
    const setting = this.told.setting();
    if (!setting) return false;
    const turn = this.newTurn(text, images, setting.sides.length);
    setting.sides.forEach((choice, side) => this.ask(turn, side, choice, setting.values));
    return true;
  }

  newTurn(text, images, sides) {
    const element = document.getElementById("t-turn").content.firstElementChild.cloneNode(true);
    const turn = { text, images, element, sides: [] };
    const said = element.querySelector('[data-part="said"]');
    said.textContent = text;
    element.querySelector('[data-part="images"]').append(...images.map(preview));
    const place = element.querySelector('[data-part="answers"]');
    for (let side = 0; side < sides; side++) {
      const column = document.createElement("div");
      column.className = "column";
      place.append(column);
      turn.sides.push({ answers: [], column });
    }
    place.classList.toggle("two", sides > 1);
    element.querySelector('[data-part="edit"]').addEventListener("click", () => this.edit(turn));
    this.turns.push(turn);
    this.place.append(element);
    return turn;
  }

  ask(turn, side, choice, values) {
    const answer = new Answer(choice, {
      retry: (one) => this.retry(turn, side, one),
      results: () => this.goOn(turn, side),
      changed: this.told.changed,
      settled: this.told.settled,
    });
    const messages = this.messages(turn, side, values.system);
    turn.sides[side].answers.push(answer);
    turn.sides[side].column.append(answer.element);
    const where = { project: values.project };
    if (choice.endpoint) where.endpoint = choice.endpoint;
    answer.run(where, body(values, choice, messages));
    this.told.changed();
  }

  // What a side's model reads: earlier turns that came to something there, then this one, which may be a draft.
  messages(turn, side, system) {
    const told = system ? [{ role: "system", content: system }] : [];
    for (const one of this.turns.includes(turn) ? this.turns : [...this.turns, turn]) {
      // A side that joined later goes on from what the first one heard.
      const heard = one.sides[side] ?? (one === turn ? null : one.sides[0]);
      const steps = (heard?.answers ?? []).filter((answer) => answer.usable).flatMap((answer) => answer.messages());
      if (steps.length || one === turn) told.push(userMessage(one), ...steps);
      if (one === turn) break;
    }
    return told;
  }

  retry(turn, side, answer) {
    const setting = this.told.setting();
    if (!setting) return;
    const steps = turn.sides[side];
    const at = steps.answers.indexOf(answer);
    for (const gone of steps.answers.splice(at)) {
      if (gone.running) gone.stop();
      gone.element.remove();
    }
    this.cut(this.turns.indexOf(turn) + 1);
    this.ask(turn, side, setting.sides[side] ?? answer.choice, setting.values);
  }

  goOn(turn, side) {
    const setting = this.told.setting();
    if (setting) this.ask(turn, side, setting.sides[side] ?? turn.sides[side].answers.at(-1).choice, setting.values);
  }

  // Forgets the turns from one on: what follows a changed message answers another one.
  cut(from) {
    const gone = this.turns.slice(from);
    this.turns = this.turns.slice(0, from);
    for (const turn of gone) {
      for (const answer of turn.sides.flatMap((side) => side.answers)) if (answer.running) answer.stop();
      turn.element.remove();
    }
  }

  edit(turn) {
    const bubble = turn.element.querySelector('[data-part="bubble"]');
    const form = document.getElementById("t-edit").content.firstElementChild.cloneNode(true);
    const field = form.querySelector("textarea");
    field.value = turn.text;
    const close = () => {
      form.remove();
      bubble.hidden = false;
      bubble.querySelector('[data-part="edit"]').focus();
    };
    const send = () => {
      const text = field.value.trim();
      if (!text && !turn.images.length) return;
      if (!this.told.setting()) return;
      this.cut(this.turns.indexOf(turn));
      this.send(text, turn.images);
      this.told.edited();
    };
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      send();
    });
    form.querySelector('[data-part="cancel"]').addEventListener("click", close);
    field.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        send();
      } else if (event.key === "Escape") {
        event.stopPropagation();
        close();
      }
    });
    bubble.hidden = true;
    bubble.after(form);
    field.focus();
  }

  // Gives what there was, for `put`.
  clear() {
    const gone = this.turns;
    this.cut(0);
    this.told.changed();
    return gone;
  }

  put(turns) {
    this.turns = turns;
    this.place.replaceChildren(...turns.map((turn) => turn.element));
    this.told.changed();
  }
}

function userMessage({ text, images }) {
  if (!images.length) return { role: "user", content: text };
  const parts = images.map(({ url }) => ({ type: "image_url", image_url: { url } }));
  return { role: "user", content: text ? [{ type: "text", text }, ...parts] : parts };
}
