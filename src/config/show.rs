//! Settings as they may be shown: without secrets.

use serde_json::Value;

use super::Setting;

const MASK: &str = "***";

/// The setting with hashes of keys and passwords in URLs replaced.
pub(super) fn masked(setting: &Setting) -> Setting {
    let mut shown = setting.clone();
    mask(&mut shown.value);
    shown
}

fn mask(value: &mut Value) {
    match value {
        Value::String(text) => {
            if let Some(url) = without_password(text) {
                *text = url;
            }
        }
        Value::Array(members) => members.iter_mut().for_each(mask),
        Value::Object(members) => {
            for (name, member) in members {
                if name == "sha256" {
                    *member = Value::String(MASK.to_owned());
                } else {
                    mask(member);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// `scheme://user:password@host...` with the password masked; `None` when there is none.
fn without_password(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let (credentials, _) = authority.rsplit_once('@')?;
    let (user, _) = credentials.split_once(':')?;
    Some(format!("{scheme}://{user}:{MASK}{}", &rest[credentials.len()..]))
}

#[cfg(test)]
mod tests {
    use super::without_password;

    #[test]
    fn only_the_password_of_a_url_is_masked() {
        assert_eq!(without_password("redis://:pw@cache:6379/0").as_deref(), Some("redis://:***@cache:6379/0"));
        assert_eq!(without_password("postgres://a:b@c@host/x").as_deref(), Some("postgres://a:***@host/x"));
        assert_eq!(without_password("sqlite:///data/a@b.db"), None);
        assert_eq!(without_password("127.0.0.1:8080"), None);
    }
}
