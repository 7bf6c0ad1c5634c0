// A page around `useChat`, built once with version 6 and once with version 7 of the AI SDK; the build chooses "sdk".
import { createElement as h, StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { lastAssistantMessageIsCompleteWithApprovalResponses, useChat } from "sdk";

function Part({ part, decide }) {
  if (part.type === "text" || part.type === "reasoning") return h("p", { className: part.type }, part.text);
  if (part.type.startsWith("tool-")) {
    const waits = part.state === "approval-requested";
    const answer = (approved) => () => decide({ id: part.approval.id, approved });
    return h(
      "p",
      { className: "tool", "data-state": part.state },
      JSON.stringify(part.output ?? part.input),
      waits && h("button", { onClick: answer(true) }, "Allow"),
      waits && h("button", { onClick: answer(false) }, "Deny"),
    );
  }
  return null;
}

function Chat() {
  const chat = useChat({
    id: "talk",
    resume: location.hash === "#resume",
    sendAutomaticallyWhen: lastAssistantMessageIsCompleteWithApprovalResponses,
  });
  return h(
    "main",
    { "data-status": chat.status },
    chat.messages.map((message) =>
      h(
        "section",
        { key: message.id, className: message.role },
        message.parts.map((part, key) => h(Part, { key, part, decide: chat.addToolApprovalResponse })),
      ),
    ),
    chat.error && h("p", { role: "alert" }, chat.error.message),
    h("button", { onClick: () => chat.sendMessage({ text: "hi" }) }, "Send"),
    h("button", { onClick: chat.stop }, "Stop"),
  );
}

createRoot(document.getElementById("root")).render(h(StrictMode, null, h(Chat)));
