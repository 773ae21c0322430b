//! Chat templates: messages to the text, and then the tokens, that a model was trained on.

use std::sync::Arc;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Kwargs;
use minijinja::{Environment, Error, ErrorKind, Value, context};
use serde::Serialize;
use serde_json::ser::PrettyFormatter;
use thiserror::Error;

use super::chat::{ChatMessage, PromptError, Role, Vocabulary};
use super::tokenizer::Tokenizer;

/// The longest templates in use have some 20 KiB.
pub const MAX_TEMPLATE_BYTES: usize = 256 << 10;
/// Messages of one prompt.
const MAX_MESSAGES: usize = 256;
/// One for each instruction and each 64 bytes of text, so a prompt of a megabyte fits and a loop ends within a second.
const FUEL: u64 = 1_000_000;
const NAME: &str = "chat template";

const CHATML: &str = "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content + \
    '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
const PLAIN: &str = "{% for message in messages %}{{ message.role | capitalize + ': ' + message.content + '\n\n' }}\
    {% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}";

/// A compiled template and the special tokens it may print.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    bos_token: String,
    eos_token: String,
    /// Where a template knows no system role, its text goes before the first user message.
    merge_system: bool,
}

/// Why a template cannot be used.
#[derive(Debug, Error)]
pub enum TemplateError {
    #[error("the chat template has {bytes} bytes, at most {limit} are allowed")]
    TooLarge { bytes: usize, limit: usize },
    #[error("the chat template is not valid")]
    Invalid(#[source] Error),
    #[error("the chat template refuses a conversation of one user message")]
    Unusable(#[source] Error),
    #[error("tokenizer_config.json is not the JSON expected")]
    Config(#[source] serde_json::Error),
}

/// Tokenizer and chat template of a model: what the engine needs to know of text.
#[derive(Debug)]
pub struct ChatTokenizer {
    pub tokenizer: Arc<Tokenizer>,
    pub template: ChatTemplate,
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    content: &'a str,
}

impl ChatTemplate {
    /// Compiles a template; `None` stands for ChatML if the vocabulary has it, else for plain paragraphs.
    ///
    /// # Errors
    /// When the template is too large, does not compile, or cannot render even one user message.
    pub fn new(source: Option<&str>, tokenizer: &Tokenizer) -> Result<Self, TemplateError> {
        let source = source.unwrap_or_else(|| {
            let chatml = ["<|im_start|>", "<|im_end|>"].iter().all(|token| tokenizer.token_id(token).is_some());
            if chatml { CHATML } else { PLAIN }
        });
        if source.len() > MAX_TEMPLATE_BYTES {
            return Err(TemplateError::TooLarge { bytes: source.len(), limit: MAX_TEMPLATE_BYTES });
        }
        let special = tokenizer.special_tokens();
        let text = |token: Option<u32>| token.and_then(|token| tokenizer.token_text(token)).unwrap_or_default();
        let mut template = Self {
            environment: environment(source).map_err(TemplateError::Invalid)?,
            bos_token: text(special.bos),
            eos_token: text(special.eos),
            merge_system: false,
        };
        let message = |role| Message { role, content: "a" };
        if template.render(&[message("system"), message("user")]).is_err() {
            template.render(&[message("user")]).map_err(TemplateError::Unusable)?;
            template.merge_system = true;
        }
        Ok(template)
    }

    fn render(&self, messages: &[Message<'_>]) -> Result<String, Error> {
        self.environment.get_template(NAME)?.render(context! {
            messages => minijinja::value::Serde(messages),
            add_generation_prompt => true,
            bos_token => &self.bos_token,
            eos_token => &self.eos_token,
        })
    }
}

/// The template in `tokenizer_config.json`: a string, or a list of named ones, of which `default` is taken.
///
/// # Errors
/// When the text is not JSON.
pub fn template_in_config(json: &str) -> Result<Option<String>, TemplateError> {
    let config: serde_json::Value = serde_json::from_str(json).map_err(TemplateError::Config)?;
    let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
    Ok(match &config["chat_template"] {
        serde_json::Value::Array(named) => {
            let default = named.iter().find(|template| template["name"] == "default").or(named.first());
            default.and_then(|template| text(&template["template"]))
        }
        template => text(template),
    })
}

impl ChatTokenizer {
    fn messages(&self, messages: &[ChatMessage]) -> Result<Vec<(Role, String)>, PromptError> {
        if messages.len() > MAX_MESSAGES {
            let reason = format!("the prompt has {} messages, at most {MAX_MESSAGES} are allowed", messages.len());
            return Err(PromptError { reason });
        }
        let mut clean: Vec<(Role, String)> = Vec::with_capacity(messages.len());
        let mut system = String::new();
        for message in messages {
            let content = self.neutralize(&message.content)?;
            match message.role {
                Role::System if self.template.merge_system => {
                    system.push_str(&content);
                    system.push_str("\n\n");
                }
                Role::User if !system.is_empty() => {
                    clean.push((Role::User, std::mem::take(&mut system) + &content));
                }
                role => clean.push((role, content)),
            }
        }
        if !system.is_empty() {
            clean.push((Role::User, system.trim_end().to_owned()));
        }
        Ok(clean)
    }

    fn neutralize(&self, text: &str) -> Result<String, PromptError> {
        let clean = self.tokenizer.neutralize(text);
        match self.tokenizer.hides_control(&clean) {
            Ok(false) => Ok(clean.into_owned()),
            Ok(true) => Err(PromptError { reason: "the prompt hides a control token of the model".to_owned() }),
            Err(error) => Err(PromptError { reason: error.to_string() }),
        }
    }
}

impl Vocabulary for ChatTokenizer {
    fn encode_chat(&self, messages: &[ChatMessage], prefix: &str) -> Result<Vec<u32>, PromptError> {
        let clean = self.messages(messages)?;
        let messages: Vec<Message<'_>> =
            clean.iter().map(|(role, content)| Message { role: role.as_str(), content }).collect();
        let mut text = self.template.render(&messages).map_err(|error| PromptError {
            reason: format!("the model's chat template refuses the messages: {error}"),
        })?;
        text.push_str(&self.neutralize(prefix)?);
        let mut tokens = self.tokenizer.encode(&text).map_err(|error| PromptError { reason: error.to_string() })?;
        let special = self.tokenizer.special_tokens();
        if let Some(bos) = special.bos.filter(|_| special.add_bos)
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

/// As `transformers` sets Jinja up for chat templates (`utils/chat_template_utils.py`).
fn environment(source: &str) -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", strftime_now);
    environment.add_filter("tojson", tojson);
    environment.add_template_owned(NAME, source.to_owned())?;
    Ok(environment)
}

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

/// The day that Llama 3's own template falls back to. The real one would change prompts, and with them cached prefixes
/// and seeded texts, from day to day.
fn strftime_now(format: String) -> Result<String, Error> {
    jiff::fmt::strtime::format(&format, jiff::civil::date(2024, 7, 26).at(12, 0, 0, 0))
        .map_err(|error| Error::new(ErrorKind::InvalidOperation, error.to_string()))
}

/// Python's `json.dumps(value, ensure_ascii=False, indent=indent)`; minijinja's own escapes for HTML.
fn tojson(value: Value, kwargs: Kwargs) -> Result<String, Error> {
    const MAX_INDENT: usize = 16;

    let failed = |error: serde_json::Error| Error::new(ErrorKind::BadSerialization, error.to_string());
    let indent: Option<usize> = kwargs.get("indent")?;
    let mut out = Vec::new();
    match indent {
        Some(indent) => {
            let spaces = " ".repeat(indent.min(MAX_INDENT));
            let formatter = PrettyFormatter::with_indent(spaces.as_bytes());
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, formatter)).map_err(failed)?;
        }
        None => {
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, PythonFormatter)).map_err(failed)?
        }
    }
    String::from_utf8(out).map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))
}

/// Python puts a space after commas and colons.
struct PythonFormatter;

impl serde_json::ser::Formatter for PythonFormatter {
    fn begin_array_value<W: ?Sized + std::io::Write>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, writer: &mut W) -> std::io::Result<()> {
        writer.write_all(b": ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(source: &str) -> ChatTemplate {
        let environment = environment(source).unwrap();
        ChatTemplate { environment, bos_token: "<s>".into(), eos_token: "</s>".into(), merge_system: false }
    }

    fn render(source: &str, content: &str) -> Result<String, Error> {
        template(source).render(&[Message { role: "user", content }])
    }

    #[test]
    fn chatml_opens_the_assistants_turn() {
        assert_eq!(render(CHATML, "Hi").unwrap(), "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
    }

    #[test]
    fn plain_paragraphs_name_the_speaker() {
        assert_eq!(render(PLAIN, "Hi").unwrap(), "User: Hi\n\nAssistant:");
    }

    #[test]
    fn contents_are_data_and_not_escaped() {
        assert!(render(CHATML, "{{ 7 * 7 }} <b>&").unwrap().contains("{{ 7 * 7 }} <b>&"));
    }

    #[test]
    fn blocks_are_trimmed_and_python_methods_work_as_in_transformers() {
        let source = "{% for message in messages %}\n  {% if true %}\n{{ message['content'].strip() }}{{ eos_token }}\n  {% endif %}\n{% endfor %}\n";
        assert_eq!(render(source, " a ").unwrap(), "a</s>\n");
    }

    #[test]
    fn json_is_written_as_python_writes_it() {
        assert_eq!(
            render("{{ {'a': [1, 2], 'b': messages[0].content} | tojson }}", "<好>").unwrap(),
            r#"{"a": [1, 2], "b": "<好>"}"#
        );
        assert_eq!(render("{{ [1] | tojson(indent=2) }}", "").unwrap(), "[\n  1\n]");
    }

    #[test]
    fn a_date_is_the_same_every_day() {
        assert_eq!(render("{{ strftime_now('%d %b %Y') }}", "").unwrap(), "26 Jul 2024");
        assert!(render("{{ strftime_now('%!') }}", "").is_err());
    }

    #[test]
    fn an_endless_template_runs_out_of_fuel() {
        let source = "{% for a in range(99999) %}{% for b in range(99999) %}{{ b }}{% endfor %}{% endfor %}";
        assert_eq!(render(source, "").unwrap_err().kind(), ErrorKind::OutOfFuel);
        assert_eq!(render("{{ 'x' * 1000000000 }}", "").unwrap_err().kind(), ErrorKind::OutOfFuel);
    }

    #[test]
    fn the_template_in_a_config_is_a_string_or_the_default_of_a_list() {
        let find = |json: &str| template_in_config(json).unwrap();
        assert_eq!(find(r#"{"chat_template": "a"}"#).as_deref(), Some("a"));
        let list =
            r#"{"chat_template": [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]}"#;
        assert_eq!(find(list).as_deref(), Some("d"));
        assert_eq!(find("{}"), None);
        assert!(template_in_config("{").is_err());
    }
}
