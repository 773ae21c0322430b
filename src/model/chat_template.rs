//! Chat templates: messages to the text a model was trained on. Templates come from model files, so they run with a
//! fuel limit; messages are data in them and lose their control tokens first.

use std::borrow::Cow;

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, ErrorKind, Value, context};
use thiserror::Error;

use super::chat::{ChatMessage, PromptError, Role, Vocabulary};
use super::tokenizer::{Tokenizer, TokenizerError};

/// Larger than any published template, tools included.
pub const MAX_TEMPLATE_BYTES: usize = 256 * 1024;
/// Instructions that a template may execute; published ones need a few hundred for short chats.
const FUEL: u64 = 200_000;
const NAME: &str = "chat";

/// The form that most small models were tuned on, for files that hold no template of their own.
const CHATML: &str = "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n\
                      {% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
/// For models without any chat tokens.
const PLAIN: &str = "{% for message in messages %}{{ message.role | capitalize }}: {{ message.content }}\n{% endfor %}\
                     {% if add_generation_prompt %}Assistant: {% endif %}";

#[derive(Debug, Error)]
pub enum TemplateError {
    #[error("the chat template has {bytes} bytes, at most {limit} are read")]
    TooLarge { bytes: usize, limit: usize },
    #[error("the chat template cannot be parsed")]
    Parse(#[source] minijinja::Error),
}

/// A compiled template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
}

impl ChatTemplate {
    /// Compiles a template as Hugging Face does: blocks trimmed, Python's string methods, `raise_exception`.
    ///
    /// # Errors
    /// See [`TemplateError`].
    pub fn new(source: &str) -> Result<Self, TemplateError> {
        if source.len() > MAX_TEMPLATE_BYTES {
            return Err(TemplateError::TooLarge { bytes: source.len(), limit: MAX_TEMPLATE_BYTES });
        }
        let mut environment = Environment::new();
        let mut syntax = SyntaxConfig::builder();
        syntax.trim_blocks(true).lstrip_blocks(true).keep_trailing_newline(true);
        environment.set_syntax(syntax.build().map_err(TemplateError::Parse)?);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> Result<Value, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
        });
        // A date would make prompts, and with them cached prefixes and seeded texts, change from day to day.
        environment.add_function("strftime_now", |_: String| Value::from(""));
        environment.add_template_owned(NAME, source.to_owned()).map_err(TemplateError::Parse)?;
        Ok(Self { environment })
    }

    /// The template to use with a tokenizer whose files hold none.
    ///
    /// # Errors
    /// See [`TemplateError`].
    pub fn fallback(tokenizer: &Tokenizer) -> Result<Self, TemplateError> {
        Self::new(if tokenizer.token_id("<|im_start|>").is_some() { CHATML } else { PLAIN })
    }

    /// The prompt up to the assistant's turn, which is opened.
    ///
    /// # Errors
    /// When the template raises an exception, fails, or runs out of fuel.
    pub fn render(&self, messages: &[Message<'_>], bos: &str, eos: &str) -> Result<String, minijinja::Error> {
        let messages: Vec<Value> = messages
            .iter()
            .map(|message| context! { role => message.role.as_str(), content => message.content.as_ref() })
            .collect();
        self.environment.get_template(NAME)?.render(context! {
            messages, add_generation_prompt => true, bos_token => bos, eos_token => eos,
        })
    }
}

/// A message whose content was neutralized.
#[derive(Debug, Clone)]
pub struct Message<'a> {
    pub role: Role,
    pub content: Cow<'a, str>,
}

/// A tokenizer with its template: what the engine asks for.
#[derive(Debug)]
pub struct ChatTokenizer {
    tokenizer: Tokenizer,
    template: ChatTemplate,
    bos: String,
    eos: String,
}

impl ChatTokenizer {
    pub fn new(tokenizer: Tokenizer, template: ChatTemplate) -> Self {
        let text = |token: Option<u32>| token.and_then(|token| tokenizer.token_text(token)).unwrap_or_default();
        let (bos, eos) = (text(tokenizer.special_tokens().bos), text(tokenizer.special_tokens().eos));
        Self { tokenizer, template, bos, eos }
    }

    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The text that [`Vocabulary::encode_chat`] tokenizes.
    ///
    /// # Errors
    /// As for that method.
    pub fn render_chat(&self, messages: &[ChatMessage], prefix: &str) -> Result<String, PromptError> {
        let messages = messages
            .iter()
            .map(|message| Ok(Message { role: message.role, content: self.neutral(&message.content)? }))
            .collect::<Result<Vec<_>, PromptError>>()?;
        let mut text = self.template.render(&messages, &self.bos, &self.eos).map_err(|error| refused(&error))?;
        text.push_str(&self.neutral(prefix)?);
        Ok(text)
    }

    fn neutral<'a>(&self, text: &'a str) -> Result<Cow<'a, str>, PromptError> {
        let neutral = self.tokenizer.neutralize(text);
        match self.tokenizer.hides_control(&neutral) {
            Ok(false) => Ok(neutral),
            Ok(true) => Err(PromptError { reason: "a text hides a control token of the model".to_owned() }),
            Err(error) => Err(PromptError { reason: error.to_string() }),
        }
    }
}

fn refused(error: &minijinja::Error) -> PromptError {
    let reason = match error.kind() {
        ErrorKind::OutOfFuel => "the chat template runs too long".to_owned(),
        _ => format!("the chat template fails: {error}"),
    };
    PromptError { reason }
}

impl Vocabulary for ChatTokenizer {
    fn encode_chat(&self, messages: &[ChatMessage], prefix: &str) -> Result<Vec<u32>, PromptError> {
        let text = self.render_chat(messages, prefix)?;
        let mut tokens =
            self.tokenizer.encode(&text).map_err(|error: TokenizerError| PromptError { reason: error.to_string() })?;
        let special = self.tokenizer.special_tokens();
        // Many templates write the token themselves.
        if let (true, Some(bos)) = (special.add_bos, special.bos)
            && tokens.first() != Some(&bos)
        {
            tokens.insert(0, bos);
        }
        Ok(tokens)
    }

    fn token_bytes(&self, token: u32) -> &[u8] {
        self.tokenizer.token_bytes(token)
    }

    fn is_end(&self, token: u32) -> bool {
        self.tokenizer.is_end(token)
    }

    fn is_control(&self, token: u32) -> bool {
        self.tokenizer.is_control(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(source: &str, contents: &[&str]) -> Result<String, minijinja::Error> {
        let messages: Vec<Message<'_>> = contents
            .iter()
            .map(|content| Message { role: Role::User, content: Cow::Borrowed(*content) })
            .collect();
        ChatTemplate::new(source).unwrap().render(&messages, "<s>", "</s>")
    }

    #[test]
    fn chatml_opens_the_assistants_turn() {
        assert_eq!(render(CHATML, &["Hi"]).unwrap(), "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
    }

    #[test]
    fn contents_are_data_not_template_code() {
        assert!(render(CHATML, &["{{ 7 * 7 }}{% endfor %}"]).unwrap().contains("{{ 7 * 7 }}{% endfor %}"));
    }

    #[test]
    fn blocks_are_trimmed_as_hugging_face_does() {
        let source = "{% for message in messages %}\n  {{ message.content.strip() }}\n{% endfor %}\n";
        assert_eq!(render(source, &[" a ", "b"]).unwrap(), "  a\n  b\n");
    }

    #[test]
    fn an_endless_template_runs_out_of_fuel() {
        let source = "{% for a in range(9999) %}{% for b in range(9999) %}{{ b }}{% endfor %}{% endfor %}";
        assert_eq!(render(source, &["x"]).unwrap_err().kind(), ErrorKind::OutOfFuel);
    }

    #[test]
    fn an_exception_of_the_template_is_an_error_with_its_text() {
        assert!(render("{{ raise_exception('no system role') }}", &[]).unwrap_err().to_string().contains("no system role"));
    }

    #[test]
    fn a_huge_template_is_refused() {
        assert!(matches!(ChatTemplate::new(&"x".repeat(MAX_TEMPLATE_BYTES + 1)), Err(TemplateError::TooLarge { .. })));
    }
}
