//! What was said about a new remote: by options, and by a person who is asked.

use std::collections::BTreeMap;

use super::arguments::AddArguments;
use crate::cli::exit::{Exit, Failure};
use crate::cli::terminal;
use crate::config::{NewRemote, Place, Setting, Written, listed, suggestion};
use crate::provider::registry::{Answer, FORMS, Field, Form, Method, Need, form};

/// The table of a method's keys.
const AUTH: &str = "auth";

/// All that is known of a new remote. Secrets are not in it, only where they will be.
#[derive(Clone, Debug)]
pub struct Answers {
    pub name: Option<String>,
    pub form: &'static Form,
    pub method: &'static Method,
    /// By table and key, as typed.
    values: BTreeMap<(Option<String>, String), String>,
    /// Where secrets are, by key.
    pub places: BTreeMap<&'static str, Place>,
}

/// Whether a person answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asking {
    /// Everything that the provider and the method need or offer.
    All,
    /// Only what must be known and wasn't said.
    Missing,
    /// Nobody is there: what is missing is an error.
    Nobody,
}

impl Asking {
    pub fn with(arguments: &AddArguments) -> Self {
        match (terminal::has_person(), &arguments.provider) {
            (false, _) => Self::Nobody,
            (true, None) => Self::All,
            (true, Some(_)) => Self::Missing,
        }
    }
}

impl Answers {
    /// # Errors
    /// `Usage` for what is malformed or missing, `Configuration` for words that mean nothing.
    pub fn get(arguments: &AddArguments, asking: Asking) -> Result<Self, Failure> {
        let form = provider(arguments, asking)?;
        let mut values = BTreeMap::new();
        for set in &arguments.set {
            let (key, value) = set
                .split_once('=')
                .ok_or_else(|| usage(format!("--set takes KEY=VALUE, unlike {:?}", shown(set))))?;
            let at = match key.split_once('.') {
                Some((table, key)) => (Some(table.to_owned()), key.to_owned()),
                None => (None, key.to_owned()),
            };
            values.insert(at, value.to_owned());
        }
        let keys: Vec<&str> = values
            .keys()
            .filter(|(table, key)| match table {
                None => form.field(key).is_none(),
                Some(table) => table == AUTH,
            })
            .map(|(_, key)| key.as_str())
            .collect();
        let method = method(arguments, form, &keys, asking)?;
        let mut answers = Self {
            name: arguments.name.clone(),
            form,
            method,
            values: BTreeMap::new(),
            places: BTreeMap::new(),
        };
        for ((table, key), value) in values {
            answers.set(table, key, value)?;
        }
        answers.take_places(arguments)?;
        Ok(answers)
    }

    /// A method's own key needs no `auth.` before it.
    fn set(&mut self, table: Option<String>, key: String, value: String) -> Result<(), Failure> {
        let of_method = match table.as_deref() {
            None => self.form.field(&key).is_none(),
            Some(table) => table == AUTH,
        };
        if of_method && self.method.secret(&key).is_some() {
            return Err(usage(format!(
                "{key} is a secret, and everybody can read arguments; say where it is with --secret-env, --secret-file or \
                 --secret-command, or leave it away and type it or pipe it in"
            )));
        }
        let table = match table {
            None if self.method.field(&key).is_some() => Some(AUTH.to_owned()),
            table => table,
        };
        self.values.insert((table, key), value);
        Ok(())
    }

    fn take_places(&mut self, arguments: &AddArguments) -> Result<(), Failure> {
        for text in &arguments.secret_env {
            self.place(text, Place::Env)?;
        }
        for text in &arguments.secret_file {
            self.place(text, |path| match path.strip_prefix("~/") {
                Some(_) => Place::File(path),
                None => Place::File(crate::paths::absolute(path.as_ref()).display().to_string()),
            })?;
        }
        for text in &arguments.secret_command {
            let mut malformed = false;
            self.place(text, |command| {
                let words = shlex::split(&command).unwrap_or_default();
                malformed = words.is_empty();
                Place::Command(words)
            })?;
            if malformed {
                return Err(usage("--secret-command takes a program and its arguments".to_owned()));
            }
        }
        for text in &arguments.secret_systemd {
            self.place(text, Place::Systemd)?;
        }
        Ok(())
    }

    /// `KEY=` before a place names one of the method's secrets; without it the person's own is meant.
    fn place(&mut self, text: &str, place: impl FnOnce(String) -> Place) -> Result<(), Failure> {
        let named = text
            .split_once('=')
            .and_then(|(key, rest)| Some((self.method.secret(key)?, rest)));
        let (secret, rest) = match (named, self.method.main_secret(), self.method.secrets) {
            (Some((secret, rest)), ..) => (secret, rest),
            (None, Some(main), _) => (main, text),
            (None, None, [only]) => (only, text),
            (None, None, _) => {
                return Err(usage(format!(
                    "{} with {} has no secret of yours",
                    self.form.title, self.method.word
                )));
            }
        };
        if self.places.insert(secret.key, place(rest.to_owned())).is_some() {
            return Err(usage(format!("it was said twice where the {} is", secret.word)));
        }
        Ok(())
    }

    /// Asks a person, or makes sure that nothing is missing.
    ///
    /// # Errors
    /// `Usage` when nobody is there to answer.
    pub fn complete(&mut self, asking: Asking, taken: &dyn Fn(&str) -> bool) -> Result<(), Failure> {
        let free = (1..).map(|number| match number {
            1 => self.form.kind.to_owned(),
            number => format!("{}-{number}", self.form.kind),
        });
        let free = free.into_iter().find(|name| !taken(name)).unwrap_or_default();
        match (&self.name, asking) {
            (Some(_), _) => {}
            (None, Asking::All) => self.name = Some(terminal::ask("What shall it be called", Some(&free))?),
            (None, _) => self.name = Some(free),
        }
        self.fields(None, self.form.fields, asking)?;
        self.fields(Some(AUTH), self.method.fields, asking)
    }

    fn fields(&mut self, table: Option<&str>, fields: &'static [Field], asking: Asking) -> Result<(), Failure> {
        for field in fields {
            let at = (table.map(str::to_owned), field.key.to_owned());
            let said = self.values.get(&at).cloned();
            let answer = match (asking, field.need) {
                (_, Need::Unasked) => continue,
                (Asking::All, _) => asked(field, said.as_deref())?,
                (Asking::Missing, Need::Required) if said.is_none() => asked(field, None)?,
                (Asking::Nobody, Need::Required) if said.is_none() => {
                    let example = match field.answer {
                        Answer::Text { example } => example,
                        Answer::Choice(words) => words[0],
                        Answer::Truth => "true",
                    };
                    return Err(usage(format!(
                        "{} needs {}; add: --set {}={example}",
                        self.form.title, field.key, field.key
                    )));
                }
                (Asking::Missing | Asking::Nobody, _) => continue,
            };
            match answer {
                Some(answer) => self.values.insert(at, answer),
                None => self.values.remove(&at),
            };
        }
        Ok(())
    }

    /// What is to be written. Values that hold anyway are left away.
    pub fn remote(&self) -> NewRemote {
        let mut settings = Vec::new();
        let mut take = |table: Option<&str>, fields: &[Field]| {
            for field in fields {
                let at = (table.map(str::to_owned), field.key.to_owned());
                match self.values.get(&at) {
                    Some(value) if field.default() != Some(value) => {
                        settings.push(setting(table, field.key, typed(Some(field), value)));
                    }
                    _ => {}
                }
            }
        };
        take(None, self.form.fields);
        let is_known = |table: Option<&str>, key: &str| match table {
            None => self.form.field(key).is_some(),
            Some(AUTH) => self.method.field(key).is_some(),
            Some(_) => false,
        };
        let others = |wanted: fn(Option<&str>) -> bool| {
            let unknown = self
                .values
                .iter()
                .filter(move |((table, key), _)| wanted(table.as_deref()) && !is_known(table.as_deref(), key));
            unknown.map(|((table, key), value)| setting(table.as_deref(), key, typed(None, value)))
        };
        let own: Vec<_> = others(|table| table.is_none()).collect();
        settings.extend(own);
        settings.push(setting(
            Some(AUTH),
            "method",
            Written::Text(self.method.word.to_owned()),
        ));
        let mut take = |fields: &[Field]| {
            for field in fields {
                if let Some(value) = self.values.get(&(Some(AUTH.to_owned()), field.key.to_owned())) {
                    settings.push(setting(Some(AUTH), field.key, typed(Some(field), value)));
                }
            }
        };
        take(self.method.fields);
        for (key, place) in &self.places {
            settings.push(setting(Some(AUTH), key, Written::Secret(place.clone())));
        }
        settings.extend(others(|table| table.is_some()));
        NewRemote {
            name: self.name.clone().unwrap_or_default(),
            provider: self.form.kind,
            settings,
        }
    }
}

fn usage(sentence: String) -> Failure {
    Failure::new(Exit::Usage, sentence)
}

/// What comes before a value that might be a secret.
fn shown(text: &str) -> String {
    text.chars().take(12).collect()
}

fn setting(table: Option<&str>, key: &str, value: Written) -> Setting {
    Setting {
        table: table.map(str::to_owned),
        key: key.to_owned(),
        value,
    }
}

/// Yes and no are words where a text is expected.
fn typed(field: Option<&Field>, value: &str) -> Written {
    match (field.map(|field| field.answer), value) {
        (None | Some(Answer::Truth), "true" | "false") => Written::Truth(value == "true"),
        _ => Written::Text(value.to_owned()),
    }
}

fn provider(arguments: &AddArguments, asking: Asking) -> Result<&'static Form, Failure> {
    let words = FORMS.map(|form| form.kind);
    match (&arguments.provider, asking) {
        (Some(word), _) => form(word).ok_or_else(|| {
            Failure::new(
                Exit::Configuration,
                format!(
                    "{word:?} is not a provider (there are {}){}",
                    listed(&words),
                    suggestion(word, words)
                ),
            )
        }),
        (None, Asking::Nobody) => Err(usage(format!(
            "say which provider: --provider {}",
            words.join(", --provider ")
        ))),
        (None, _) => {
            let choices: Vec<_> = FORMS.iter().map(|form| (form.kind, form.about)).collect();
            let chosen = terminal::choose("Where is your storage", &choices, None)?;
            Ok(FORMS[chosen])
        }
    }
}

/// Unless it is named, the first one that has all these keys, as far as any has them.
fn method(
    arguments: &AddArguments,
    form: &'static Form,
    keys: &[&str],
    asking: Asking,
) -> Result<&'static Method, Failure> {
    if let Some(word) = &arguments.auth_method {
        return form.method(word).ok_or_else(|| {
            let words = form.method_words();
            Failure::new(
                Exit::Configuration,
                format!(
                    "{word:?} is not a method of {} (there are {}){}",
                    form.title,
                    listed(&words),
                    suggestion(word, words.clone())
                ),
            )
        });
    }
    let choices: Vec<_> = form.methods.iter().map(|method| (method.word, method.about)).collect();
    let knows = |method: &&Method, key: &str| method.field(key).is_some() || method.secret(key).is_some();
    let meant: Vec<&&str> = keys
        .iter()
        .filter(|key| form.methods.iter().any(|method| knows(&method, key)))
        .collect();
    let fitting = form
        .methods
        .iter()
        .position(|method| meant.iter().all(|key| knows(&method, key)));
    let chosen = match (asking, choices.len()) {
        (Asking::All, 2..) => terminal::choose("How do you prove who you are", &choices, fitting.or(Some(0)))?,
        _ => fitting.unwrap_or(0),
    };
    Ok(&form.methods[chosen])
}

/// `None` where nothing was said and nothing need be.
fn asked(field: &Field, before: Option<&str>) -> Result<Option<String>, Failure> {
    let optional = match field.need {
        Need::Optional(meaning) => Some(meaning),
        _ => None,
    };
    match field.answer {
        Answer::Choice(words) => {
            let choices: Vec<_> = words.iter().map(|word| (*word, "")).collect();
            let default = before.and_then(|before| words.iter().position(|word| *word == before));
            let chosen = terminal::choose(field.question, &choices, Some(default.unwrap_or(0)))?;
            Ok(Some(words[chosen].to_owned()))
        }
        Answer::Truth => Ok(terminal::confirm(field.question)?.then(|| "true".to_owned())),
        Answer::Text { example } => loop {
            let default = before.or_else(|| field.default());
            let question = match (default, optional) {
                (Some(_), _) => field.question.to_owned(),
                (None, Some(meaning)) => format!("{}, such as {example} [{meaning}]", field.question),
                (None, None) => format!("{}, such as {example}", field.question),
            };
            let answer = terminal::ask(&question, default)?;
            if !answer.is_empty() {
                return Ok(Some(answer));
            }
            if field.need != Need::Required {
                return Ok(None);
            }
            eprintln!("This is needed.");
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Typed {
        #[command(flatten)]
        add: AddArguments,
    }

    fn answers(typed: &[&str]) -> Result<NewRemote, Failure> {
        let typed = Typed::try_parse_from([&["add"][..], typed].concat()).unwrap();
        let mut answers = Answers::get(&typed.add, Asking::Nobody)?;
        answers.complete(Asking::Nobody, &|name| name == "webdav")?;
        Ok(answers.remote())
    }

    fn texts(remote: &NewRemote) -> Vec<String> {
        let shown = remote.settings.iter().map(|setting| {
            let table = setting
                .table
                .as_ref()
                .map_or(String::new(), |table| format!("{table}."));
            match &setting.value {
                Written::Text(text) => format!("{table}{}={text}", setting.key),
                other => format!("{table}{}={other:?}", setting.key),
            }
        });
        shown.collect()
    }

    #[test]
    fn options_say_everything() {
        let remote = answers(&[
            "--provider=webdav",
            "--set=endpoint=https://h/dav?=",
            "--set=username=true",
            "--set=read_only=true",
            "--set=options.umask=077",
            "--secret-command=pass show 'my drive'",
        ])
        .unwrap();
        assert_eq!(remote.name, "webdav-2", "the first is taken");
        assert_eq!(
            texts(&remote),
            [
                "endpoint=https://h/dav?=",
                "read_only=Truth(true)",
                "auth.method=basic",
                "auth.username=true",
                "auth.password=Secret(Command([\"pass\", \"show\", \"my drive\"]))",
                "options.umask=077",
            ]
        );
        let remote = answers(&[
            "keys",
            "--provider=s3",
            "--set=bucket=b",
            "--set=region=us-east-1",
            "--set=auth.access_key_id=A",
            "--secret-env=session_token=T",
            "--secret-env=K",
        ])
        .unwrap();
        assert_eq!(
            texts(&remote),
            [
                "bucket=b",
                "auth.method=static",
                "auth.access_key_id=A",
                "auth.secret_access_key=Secret(Env(\"K\"))",
                "auth.session_token=Secret(Env(\"T\"))",
            ],
            "what holds anyway is left away"
        );
    }

    #[test]
    fn the_keys_tell_which_method_is_meant() {
        for (typed, method) in [
            (&["--provider=cloudsync"][..], "api-key"),
            (&["--provider=cloudsync", "--set=client_id=x"], "oauth"),
            (&["--provider=s3", "--set=bucket=b", "--set=auth.profile=work"], "chain"),
            (
                &["--provider=dstor", "--set=email=me@example.org", "--set=nonsense=1"],
                "login",
            ),
        ] {
            let said = texts(&answers(typed).unwrap());
            assert!(said.contains(&format!("auth.method={method}")), "{typed:?}: {said:?}");
        }
    }

    #[test]
    fn what_is_missing_or_wrong_is_said() {
        for (typed, exit, part) in [
            (&[][..], Exit::Usage, "say which provider: --provider cludz"),
            (&["--provider=cluds"], Exit::Configuration, "did you mean \"cludz\"?"),
            (&["--provider=cludz"], Exit::Usage, "add: --set storage="),
            (
                &["--provider=s3", "--auth-method=statik"],
                Exit::Configuration,
                "did you mean \"static\"?",
            ),
            (
                &["--provider=cludz", "--set=storage"],
                Exit::Usage,
                "--set takes KEY=VALUE",
            ),
            (
                &["--provider=cludz", "--set=token=canary"],
                Exit::Usage,
                "token is a secret",
            ),
            (
                &["--provider=webdav", "--set=auth.password=canary"],
                Exit::Usage,
                "password is a secret",
            ),
            (
                &[
                    "--provider=s3",
                    "--auth-method=none",
                    "--secret-env=K",
                    "--set=bucket=b",
                ],
                Exit::Usage,
                "has no secret of yours",
            ),
            (
                &["--provider=cludz", "--secret-env=K", "--secret-file=/f"],
                Exit::Usage,
                "said twice",
            ),
            (
                &["--provider=cludz", "--secret-command="],
                Exit::Usage,
                "a program and its arguments",
            ),
        ] {
            let failure = answers(typed).unwrap_err();
            assert_eq!(failure.exit, exit, "{typed:?}: {failure}");
            assert!(failure.message().contains(part), "{typed:?}: {failure}");
            assert!(!failure.message().contains("canary"), "{failure}");
        }
    }
}
