//! Bootstrap tokens: `ID.SECRET`.

use std::fmt;

use crate::JoinError;

/// A bootstrap token (`kubernetes@v1.37.2:cluster-bootstrap/token/api/types.go#BootstrapTokenPattern`). The secret is
/// never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    id: String,
    secret: String,
}

impl Token {
    /// Reads `abcdef.0123456789abcdef`.
    ///
    /// # Errors
    /// [`JoinError::TokenForm`], which does not repeat what was given: it may be a secret with one character missing.
    pub fn parse(text: &str) -> Result<Self, JoinError> {
        let part = |text: &str, length: usize| {
            text.len() == length && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        };
        match text.split_once('.') {
            Some((id, secret)) if part(id, 6) && part(secret, 16) => {
                Ok(Self { id: id.to_owned(), secret: secret.to_owned() })
            }
            _ => Err(JoinError::TokenForm),
        }
    }

    /// The public half, which names the Secret `bootstrap-token-ID`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The key of the signature.
    pub(crate) fn secret(&self) -> &str {
        &self.secret
    }

    /// As it stands behind `Authorization: Bearer`.
    pub(crate) fn bearer(&self) -> String {
        format!("{}.{}", self.id, self.secret)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Token({}.…)", self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_six_and_sixteen_and_hides_its_secret() {
        let token = Token::parse("abcdef.0123456789abcdef").expect("a token");
        assert_eq!((token.id(), token.secret()), ("abcdef", "0123456789abcdef"));
        assert_eq!(token.bearer(), "abcdef.0123456789abcdef");
        assert_eq!(format!("{token:?}"), "Token(abcdef.…)");
    }

    #[test]
    fn anything_else_is_refused_without_being_repeated() {
        for bad in [
            "",
            "abcdef",
            "abcdef.0123456789abcde",
            "abcdef.0123456789abcdefg",
            "abcdef.0123456789abcdef\n",
            "ABCDEF.0123456789abcdef",
            "abcdef.0123456789abcde.",
            "äbcde.0123456789abcdef",
        ] {
            let error = Token::parse(bad).expect_err(bad).to_string();
            assert!(!error.contains("0123456789abcde\""), "{error}");
        }
    }
}
