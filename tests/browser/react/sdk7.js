export { lastAssistantMessageIsCompleteWithApprovalResponses } from "ai7";
export { useChat } from "react7";
