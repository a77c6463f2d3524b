// Shows the answer while it arrives. Without this file, the form is posted to the chat page itself.
const form = document.querySelector("[data-stream]");
const log = document.querySelector("[data-log]");
const template = document.querySelector("[data-exchange]");
const question = form.elements.question;
const button = form.querySelector("button");

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (button.disabled) return;
  if (question.value.trim()) ask();
  else question.focus();
});

question.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
});
form.querySelector("[data-hint]").hidden = false;
question.value ||= sessionStorage.getItem("question") ?? ""; // after a purchase or a sign-in, see show()
sessionStorage.removeItem("question");

async function ask() {
  const body = new FormData(form); // carries the CSRF token of the page
  const exchange = addExchange(body.get("question"));
  button.disabled = true;
  log.setAttribute("aria-busy", "true"); // a screen reader then reads the complete answer once
  try {
    const response = await fetch(form.dataset.stream, { method: "POST", body, redirect: "manual" });
    if (!response.ok) {
      // For example out of credits, or signed out: the JSON has the error, and a link that helps.
      const json = response.headers.get("Content-Type")?.startsWith("application/json");
      if (json) show(exchange, "error", await response.json());
      else form.submit(); // posting the form as usual leads to a page that says why
      return;
    }
    question.value = "";
    sessionStorage.removeItem("question"); // left over if a link was opened in another tab
    let last;
    for await (const [kind, data] of quotaEvents(response.body)) show(exchange, (last = kind), data);
    if (last !== "done" && last !== "error") throw new Error("It ended before its end.");
  } catch {
    show(exchange, "error", { error: { message: "The connection was lost.", hint: "Please ask again." } });
  } finally {
    button.disabled = false;
    log.setAttribute("aria-busy", "false");
  }
}

function addExchange(text) {
  const exchange = template.content.firstElementChild.cloneNode(true);
  part(exchange, "question").textContent = text;
  log.append(exchange);
  form.scrollIntoView({ block: "end" });
  return exchange;
}

function show(exchange, kind, data) {
  const following = form.getBoundingClientRect().bottom < innerHeight + 100; // not scrolled away
  if (kind === "delta") {
    part(exchange, "answer").append(data.text);
  } else if (kind === "done" && !data.cost) {
    askForBalance(); // the response has no cost
  } else if (kind === "done") {
    part(exchange, "cost").textContent = `This answer cost ${data.cost}.`;
    for (const pill of document.querySelectorAll("[data-quota-balance]")) {
      showBalance(pill, data.balance, data.state);
    }
  } else if (kind === "error") {
    const { message, hint } = data.error;
    const link = part(exchange, "link");
    part(exchange, "message").textContent = `${message} ${hint}`;
    link.textContent = data.topup_url ? "Buy credits" : "Sign in with Quota";
    link.hidden = !(data.topup_url || data.login_url);
    if (!link.hidden) {
      const url = new URL(data.topup_url || data.login_url, location);
      url.searchParams.set("next", location.pathname); // to come back to this page
      link.href = url;
      link.onclick = () => sessionStorage.setItem("question", question.value);
    }
    part(exchange, "error").hidden = false;
    askForBalance();
    question.value ||= part(exchange, "question").textContent; // keeps the question for another try
  }
  if (following) form.scrollIntoView({ block: "end" });
}

// Another tab or app may have spent credits, so the balance on the page may be wrong.
async function askForBalance() {
  for (const pill of document.querySelectorAll("[data-quota-balance]")) {
    const response = await fetch(pill.dataset.url);
    if (!response.ok) continue;
    const { display, state } = await response.json();
    showBalance(pill, display, state);
  }
}

// Writes the same HTML as the tag {% quota_balance %}.
function showBalance(pill, text, state) {
  pill.textContent = text;
  pill.dataset.state = state;
  if (state !== "low") return;
  const mark = document.createElement("span");
  mark.className = "quota-balance__low";
  mark.textContent = "low";
  pill.append(" ", mark);
}

function part(exchange, name) {
  return exchange.querySelector(`[data-${name}]`);
}
