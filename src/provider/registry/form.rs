//! What a person has to say to configure a remote: each provider's keys, its methods and what their secrets are called.
//!
//! The one list of them. `config` knows the providers and their methods from here, and `cli` asks from here; what an
//! answer means is read by `config` alone.

/// A provider as a person chooses it.
#[derive(Debug)]
pub struct Form {
    /// The configuration's word.
    pub kind: &'static str,
    /// The name as the provider writes it itself.
    pub title: &'static str,
    /// For somebody who doesn't know it.
    pub about: &'static str,
    /// Keys of `[remotes.NAME]`, in the order in which they are asked for.
    pub fields: &'static [Field],
    pub methods: &'static [Method],
}

/// A key that is no secret.
#[derive(Debug)]
pub struct Field {
    pub key: &'static str,
    /// What is asked, without a question mark.
    pub question: &'static str,
    pub answer: Answer,
    pub need: Need,
}

/// What an answer looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Text {
        example: &'static str,
    },
    /// One of these; the first is what holds when nothing is said.
    Choice(&'static [&'static str]),
    /// Yes or no; no when nothing is said.
    Truth,
}

/// Whether somebody has to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    Required,
    /// Nothing said means this value.
    Default(&'static str),
    /// Nothing said has this meaning.
    Optional(&'static str),
    /// Hardly anybody needs it, so nobody is asked.
    Unasked,
}

/// A way to prove who asks.
#[derive(Debug)]
pub struct Method {
    /// The configuration's word.
    pub word: &'static str,
    pub about: &'static str,
    /// Keys of `[remotes.NAME.auth]`.
    pub fields: &'static [Field],
    /// Keys of `[remotes.NAME.auth]` that say where a secret is. The first one is the person's own, if it is required.
    pub secrets: &'static [Secret],
}

/// A secret of a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Secret {
    pub key: &'static str,
    /// What a person calls it: `password`.
    pub word: &'static str,
    pub need: Need,
}

impl Form {
    pub fn method(&self, word: &str) -> Option<&'static Method> {
        self.methods.iter().find(|method| method.word == word)
    }

    /// The words of its methods.
    pub fn method_words(&self) -> Vec<&'static str> {
        self.methods.iter().map(|method| method.word).collect()
    }

    pub fn field(&self, key: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.key == key)
    }
}

impl Method {
    /// Nothing is proved: public content.
    pub const NONE: Self = Self {
        word: "none",
        about: "nothing: what is public",
        fields: &[],
        secrets: &[],
    };

    pub fn field(&self, key: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.key == key)
    }

    pub fn secret(&self, key: &str) -> Option<&'static Secret> {
        self.secrets.iter().find(|secret| secret.key == key)
    }

    /// The secret that the person must have.
    pub fn main_secret(&self) -> Option<&'static Secret> {
        self.secrets.iter().find(|secret| secret.need == Need::Required)
    }
}

impl Secret {
    pub const fn required(key: &'static str, word: &'static str) -> Self {
        Self {
            key,
            word,
            need: Need::Required,
        }
    }
}

impl Field {
    /// The service's address, where there is one for all.
    pub const fn endpoint(default: &'static str) -> Self {
        Self {
            key: "endpoint",
            question: "Address of the service",
            answer: Answer::Text { example: default },
            need: Need::Default(default),
        }
    }

    /// What holds when nothing is said.
    pub fn default(&self) -> Option<&'static str> {
        match (self.need, self.answer) {
            (Need::Default(value), _) => Some(value),
            (_, Answer::Choice([first, ..])) => Some(first),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::FORMS;
    use super::*;

    #[test]
    fn a_form_says_each_thing_once() {
        for form in FORMS {
            let mut keys: Vec<&str> = form.fields.iter().map(|field| field.key).collect();
            keys.sort_unstable();
            keys.dedup();
            assert_eq!(keys.len(), form.fields.len(), "{}", form.kind);
            assert!(!form.methods.is_empty(), "{}", form.kind);
            for method in form.methods {
                let required = method.secrets.iter().filter(|secret| secret.need == Need::Required);
                assert!(required.count() <= 1, "{} {}", form.kind, method.word);
            }
        }
    }
}
