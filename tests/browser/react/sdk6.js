export { lastAssistantMessageIsCompleteWithApprovalResponses } from "ai6";
export { useChat } from "react6";
