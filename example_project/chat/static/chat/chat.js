// Shows the answer while it arrives. Without this file, the form is posted to the chat page itself.
const form = document.querySelector("[data-stream]");
const log = document.querySelector("[data-log]");
const template = document.querySelector("[data-exchange]");
const question = form.elements.question;
const askButton = form.querySelector("[data-ask]");
const stopButton = form.querySelector("[data-stop]");
const usd = new Intl.NumberFormat("en-US", { style: "currency", currency: "USD", maximumFractionDigits: 6 });

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (askButton.disabled) return;
  if (question.value.trim()) ask();
  else question.focus();
});

question.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
});
form.querySelector("[data-hint]").hidden = false;
question.value ||= sessionStorage.getItem("question") ?? ""; // after a purchase or a sign-in, see showError()
sessionStorage.removeItem("question");

async function ask() {
  const body = new FormData(form); // carries the CSRF token of the page
  const exchange = addExchange(body.get("question"));
  const stopper = new AbortController();
  stopButton.onclick = () => stopper.abort(); // closes the connection, so the call ends at Quota too
  setBusy(true);
  try {
    const options = { method: "POST", body, redirect: "manual", signal: stopper.signal };
    const response = await fetch(form.dataset.stream, options);
    if (!response.ok) {
      // For example out of credits, or signed out: the JSON has the error, and a link that helps.
      const json = response.headers.get("Content-Type")?.startsWith("application/json");
      if (json) showError(exchange, await response.json());
      else form.submit(); // posting the form as usual leads to a page that says why
      return;
    }
    question.value = "";
    sessionStorage.removeItem("question"); // left over if a link was opened in another tab
    let hasEnded = false;
    for await (const [kind, data] of quotaEvents(response.body)) {
      hasEnded ||= kind === "done" || kind === "error";
      show[kind](exchange, data);
    }
    if (!hasEnded) throw new Error("It ended before its end.");
  } catch {
    if (stopper.signal.aborted) showStopped(exchange);
    else showError(exchange, { error: { message: "The connection was lost.", hint: "Please ask again." } });
  } finally {
    setBusy(false);
  }
}

function setBusy(busy) {
  askButton.disabled = busy;
  stopButton.hidden = !busy;
  log.setAttribute("aria-busy", busy); // a screen reader then reads the complete answer once
}

function addExchange(text) {
  const exchange = template.content.firstElementChild.cloneNode(true);
  part(exchange, "question").textContent = text;
  log.append(exchange);
  form.scrollIntoView({ block: "end" });
  return exchange;
}

// What to do for each kind of event.
const show = {
  delta(exchange, data) {
    following(() => part(exchange, "answer").append(data.text));
  },
  // From notes.py: HTML that a template of this site has made.
  note(exchange, data) {
    following(() => { part(exchange, data.part).innerHTML = data.html; });
  },
  done(exchange, data) {
    if (!data.cost) askForBalance(); // the response has no cost
    else showBalances(data.balance_after, data.balance, data.state);
  },
  error: showError,
};

function showError(exchange, data) {
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
  following(() => { part(exchange, "error").hidden = false; });
  askForBalance();
  question.value ||= part(exchange, "question").textContent; // keeps the question for another try
}

function showStopped(exchange) {
  part(exchange, "cost").textContent = "You stopped this answer. What was written of it is paid for.";
  // The call ends with the model's next words, and is paid for then.
  setTimeout(askForBalance, 2000);
}

// Changes the page, and keeps the form in sight unless the reader has scrolled away from it.
function following(change) {
  const isFollowing = form.getBoundingClientRect().bottom < innerHeight + 100;
  change();
  if (isFollowing) form.scrollIntoView({ block: "end" });
}

// Another tab or app may have spent credits, so the balance on the page may be wrong.
async function askForBalance() {
  const pill = document.querySelector("[data-quota-balance]");
  const response = pill && (await fetch(pill.dataset.url));
  if (!response?.ok) return;
  const { balance, display, state } = await response.json();
  showBalances(balance, display, state);
}

// Writes the same HTML as the tag {% quota_balance %}.
function showBalances(credits, text, state) {
  for (const pill of document.querySelectorAll("[data-quota-balance]")) {
    pill.textContent = text;
    pill.title = text && usd.format(credits / 1e6); // the exact amount
    pill.dataset.state = state;
    if (state !== "low") continue;
    const mark = document.createElement("span");
    mark.className = "quota-balance__low";
    mark.textContent = "low";
    pill.append(" ", mark);
  }
}

function part(exchange, name) {
  return exchange.querySelector(`[data-${name}]`);
}
