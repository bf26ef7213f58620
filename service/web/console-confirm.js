// The dialog that asks for the reason of a change, and for its end, and confirms it. It may show first what the change would do.
import { el, text } from "./base.js";

const $ = (id) => document.getElementById(id);

export class Confirm {
  /** `send(method, path, body)` makes the change; the dialog shows the Refusal that it throws. */
  constructor(send) {
    this.send = send;
    this.box = $("confirm");
    this.done = null;
    $("cancel").addEventListener("click", () => this.box.close());
    $("ends").addEventListener("change", () => this.showMinutes());
    $("confirm-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.go();
    });
    this.box.addEventListener("close", () => {
      this.done?.(this.changed);
      this.done = null;
    });
  }

  /** Resolves to whether the change was confirmed and made. With `preview` it says first what the service would do. */
  ask(change) {
    this.change = change;
    this.changed = false;
    text($("confirm-title"), change.title);
    text($("confirm-what"), change.what);
    text($("confirm-go"), change.go);
    $("confirm-go").className = change.look;
    $("confirm-go").disabled = false;
    $("confirm-fault").hidden = $("confirm-would").hidden = true;
    $("ends-field").hidden = !change.expires;
    $("reason-field").hidden = Boolean(change.noReason);
    $("reason").required = !change.noReason;
    $("ends").value = "900";
    $("reason").value = $("minutes").value = "";
    this.showMinutes();
    this.box.showModal();
    (change.noReason ? $("confirm-go") : $("reason")).focus();
    if (change.preview) this.preview(change);
    return new Promise((resolve) => {
      this.done = resolve;
    });
  }

  /** Shows what the change would do, as the service says; until then, and if it would be refused, it cannot be made. */
  async preview(change) {
    $("confirm-go").disabled = true;
    $("confirm-would").hidden = false;
    $("confirm-would").replaceChildren(el("li", { class: "quiet" }, "…"));
    try {
      const planned = await this.send(change.method, `${change.path}?dry_run=true`, change.body);
      if (this.change !== change) return;
      const said = [...planned.would, ...(change.examples?.(planned) ?? [])];
      $("confirm-would").replaceChildren(...said.map((sentence) => el("li", {}, sentence)));
      if (planned.refused.length) this.refuse(`It would be refused: ${planned.refused.join("; ")}`);
      else $("confirm-go").disabled = false;
    } catch (error) {
      if (this.change !== change) return;
      $("confirm-would").hidden = true;
      this.refuse(error.message);
    }
  }

  close() {
    this.box.close();
  }

  showMinutes() {
    const other = Boolean(this.change?.expires) && $("ends").value === "other";
    $("minutes-field").hidden = !other;
    $("minutes").required = other;
    $("minutes").disabled = !other;
  }

  async go() {
    const body = { ...this.change.body, reason: $("reason").value.trim() };
    if (!body.reason && !this.change.noReason) {
      this.refuse("Enter a reason; it is kept in the audit.");
      $("reason").focus();
      return;
    }
    if (this.change.expires && $("ends").value) {
      body.expires_in_s = $("ends").value === "other" ? 60 * Number($("minutes").value) : Number($("ends").value);
    }
    $("confirm-go").disabled = true;
    try {
      const { method, path } = this.change;
      if (this.change.noReason) await this.send(method, path);
      else if (method === "DELETE") await this.send(method, `${path}?${new URLSearchParams({ reason: body.reason })}`);
      else await this.send(method, path, body);
      this.changed = true;
      this.box.close();
    } catch (error) {
      this.refuse(error.message);
    } finally {
      $("confirm-go").disabled = false;
    }
  }

  refuse(why) {
    $("confirm-fault").hidden = false;
    text($("confirm-fault"), why);
  }
}
