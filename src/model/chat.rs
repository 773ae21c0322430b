//! A prompt as the engine hands it to a model, and the view of a tokenizer that the engine needs.

use thiserror::Error;

/// Who speaks in a chat message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    System,
    User,
    Assistant,
}

impl Role {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// One message of a prompt. The content is data: control tokens in it are taken out before it is tokenized.
#[derive(Debug, Clone)]
pub struct ChatMessage {
    pub role: Role,
    pub content: String,
}

/// Why a prompt could not become tokens.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{reason}")]
pub struct PromptError {
    pub reason: String,
}

/// The tokenizer and chat template of a model, as the engine uses them. Cheap to share between threads.
pub trait Vocabulary: Send + Sync {
    /// Renders the chat template, opens the assistant's turn, appends `prefix`, and tokenizes. Control tokens in the
    /// messages' contents are taken out first, so contents cannot speak for another role.
    ///
    /// # Errors
    /// When the template refuses the messages or runs out of fuel.
    fn encode_chat(&self, messages: &[ChatMessage], prefix: &str) -> Result<Vec<u32>, PromptError>;
    /// The bytes a token stands for; empty for control tokens and unknown ids. May be part of a character.
    fn token_bytes(&self, token: u32) -> &[u8];
    /// Whether the token ends a turn (end of sequence, end of turn).
    fn is_end(&self, token: u32) -> bool;
    /// Whether the token is a control token: never sampled unless it ends the turn.
    fn is_control(&self, token: u32) -> bool;
}
