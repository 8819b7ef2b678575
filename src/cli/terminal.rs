//! Answers from a person: questions, and secrets that are typed without being shown or come from a pipe.

use std::io::{IsTerminal, Write};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use secrecy::SecretString;
use secrecy::zeroize::Zeroizing;

use super::exit::{Exit, Failure};
use crate::auth::store::MAX_SECRET;

/// What Ctrl-C types where it ends no process.
const CTRL_C: u8 = 3;

/// Whether somebody reads questions and can answer them.
pub fn has_person() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// Asks; Enter alone means the default, or nothing.
///
/// # Errors
/// When the input ends.
pub fn ask(question: &str, default: Option<&str>) -> Result<String, Failure> {
    let mut stderr = std::io::stderr();
    match default {
        Some(default) => write!(stderr, "{question} [{default}]: ")?,
        None => write!(stderr, "{question}: ")?,
    }
    stderr.flush()?;
    let (line, ended) = read_line(std::io::stdin().as_fd())?;
    if ended && line.is_empty() {
        writeln!(stderr)?;
        return Err(cancelled());
    }
    let text = std::str::from_utf8(&line).map_err(|_| Failure::new(Exit::Usage, "what was typed is not text"))?;
    Ok(match (text.trim(), default) {
        ("", Some(default)) => default.to_owned(),
        (text, _) => text.to_owned(),
    })
}

/// Lets the person choose one of these words, by its number or by the word; gives its index.
///
/// # Errors
/// As `ask`.
pub fn choose(question: &str, choices: &[(&str, &str)], default: Option<usize>) -> Result<usize, Failure> {
    eprintln!("{question}?");
    let width = choices.iter().map(|(word, _)| word.len()).max().unwrap_or_default();
    for (number, (word, about)) in choices.iter().enumerate() {
        eprintln!("{}", format!("  {}  {word:width$}  {about}", number + 1).trim_end());
    }
    let default = default.map(|index| choices[index].0);
    loop {
        let answer = ask("Number or word", default)?;
        let number = answer.parse::<usize>().ok().and_then(|number| number.checked_sub(1));
        let found = choices.iter().position(|(word, _)| *word == answer);
        match found.or(number.filter(|index| *index < choices.len())) {
            Some(index) => return Ok(index),
            None => eprintln!("That is none of them."),
        }
    }
}

/// Asks for a yes; everything else is a no.
///
/// # Errors
/// As `ask`.
pub fn confirm(question: &str) -> Result<bool, Failure> {
    let answer = ask(&format!("{question}? [y/N]"), None)?;
    Ok(matches!(answer.as_str(), "y" | "Y" | "yes"))
}

/// The same before something is done; `done` says what isn't done without a terminal to ask on.
///
/// # Errors
/// As `ask` and `person_for`.
pub fn ask_whether(question: &str, done: &str) -> Result<bool, Failure> {
    person_for(done)?;
    confirm(question)
}

/// # Errors
/// Without a terminal nobody can be asked, so nothing is done.
pub fn person_for(done: &str) -> Result<(), Failure> {
    if std::io::stdin().is_terminal() {
        return Ok(());
    }
    Err(Failure::new(
        Exit::Usage,
        format!("there is no terminal to ask on, so nothing was {done}; say --yes"),
    ))
}

/// As a prompt begins.
pub fn capitalised(word: &str) -> String {
    let mut letters = word.chars();
    letters
        .next()
        .map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn cancelled() -> Failure {
    Failure::new(Exit::Other, "cancelled; nothing was changed")
}

/// Asks for a secret if a person is there, else reads one line. Spaces around it are no part of it. `word` is what it is
/// called: `token`.
///
/// # Errors
/// When nothing was given, when it is too long or no text, and when the person pressed Ctrl-C.
pub fn read_secret(prompt: &str, word: &str) -> Result<SecretString, Failure> {
    to_secret(&typed_secretly(prompt)?, word)?.ok_or_else(|| nothing(word))
}

/// The same for a secret that needn't be: Enter alone is none.
///
/// # Errors
/// As `read_secret`, but for nothing given.
pub fn read_optional_secret(prompt: &str) -> Result<Option<SecretString>, Failure> {
    to_secret(&typed_secretly(prompt)?, "secret")
}

fn nothing(word: &str) -> Failure {
    Failure::new(
        Exit::Credentials,
        format!("no {word} was given; type it at the prompt, or pipe it in"),
    )
}

fn typed_secretly(prompt: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let stdin = std::io::stdin();
    let line = if stdin.is_terminal() {
        let mut stderr = std::io::stderr();
        // Before the question: what is typed at once must not show either.
        let hidden = Hidden::begin(stdin.as_fd())?;
        write!(stderr, "{prompt} (not shown): ")?;
        stderr.flush()?;
        let line = read_line(stdin.as_fd());
        drop(hidden);
        writeln!(stderr)?;
        line?
    } else {
        read_line(stdin.as_fd())?
    };
    Ok(line.0)
}

fn to_secret(line: &[u8], word: &str) -> Result<Option<SecretString>, Failure> {
    let refuse = |sentence: &str| Err(Failure::new(Exit::Credentials, sentence));
    if line.contains(&CTRL_C) {
        return refuse("cancelled; nothing was changed");
    }
    match std::str::from_utf8(line).map(str::trim) {
        Err(_) => refuse(&format!("the {word} that was given is not text; nothing was changed")),
        Ok("") => Ok(None),
        Ok(text) => Ok(Some(text.into())),
    }
}

/// Up to the line's end and not a byte more: the rest belongs to others. Says whether the input ended there.
fn read_line(input: BorrowedFd<'_>) -> Result<(Zeroizing<Vec<u8>>, bool), Failure> {
    // Room for all at once: growing would leave copies behind.
    let mut line = Zeroizing::new(Vec::with_capacity(MAX_SECRET + 1));
    let mut byte = [0];
    while line.len() <= MAX_SECRET {
        match rustix::io::read(input, &mut byte) {
            Ok(0) => return Ok((line, true)),
            Ok(_) if byte[0] == b'\n' => return Ok((line, false)),
            Ok(_) => line.push(byte[0]),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(std::io::Error::from(error).into()),
        }
        if byte[0] == CTRL_C {
            return Ok((line, false));
        }
    }
    Err(Failure::new(
        Exit::Credentials,
        "what was given is too long for a secret",
    ))
}

/// A terminal that shows nothing, until this is dropped.
struct Hidden<'a> {
    terminal: BorrowedFd<'a>,
    before: Termios,
}

impl<'a> Hidden<'a> {
    fn begin(terminal: BorrowedFd<'a>) -> Result<Self, Failure> {
        let before = tcgetattr(terminal).map_err(std::io::Error::from)?;
        let mut silent = before.clone();
        // Ctrl-C must not end the process before the terminal shows again what is typed: it ends the line instead.
        silent.local_modes &= !(LocalModes::ECHO | LocalModes::ISIG);
        silent.special_codes[SpecialCodeIndex::VEOL] = CTRL_C;
        tcsetattr(terminal, OptionalActions::Flush, &silent).map_err(std::io::Error::from)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Hidden<'_> {
    fn drop(&mut self) {
        // There is nobody to tell.
        let _ = tcsetattr(self.terminal, OptionalActions::Flush, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;

    #[test]
    fn one_line_is_read_and_the_rest_left_alone() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        rustix::io::write(&writer, b"  token-1 \r\nthe rest").unwrap();
        let (line, _) = read_line(reader.as_fd()).unwrap();
        let secret = to_secret(&line, "token").unwrap().unwrap();
        assert_eq!(secret.expose_secret(), "token-1");
        let mut rest = [0; 20];
        let length = rustix::io::read(&reader, &mut rest).unwrap();
        assert_eq!(&rest[..length], b"the rest");
        drop(writer);
        let (line, ended) = read_line(reader.as_fd()).unwrap();
        assert!(line.is_empty() && ended);
    }

    #[test]
    fn what_is_no_secret_is_refused() {
        for (line, part) in [(&b"tok\x03"[..], "cancelled"), (b"\xff\xfe", "not text")] {
            let failure = to_secret(line, "token").unwrap_err();
            assert_eq!(failure.exit, Exit::Credentials);
            assert!(failure.message().contains(part), "{failure}");
        }
        for line in [&b""[..], b" \t\r"] {
            assert!(to_secret(line, "token").unwrap().is_none());
        }
        assert!(nothing("password").message().starts_with("no password was given"));
        let long = std::fs::File::open("/dev/zero").unwrap();
        assert!(read_line(long.as_fd()).unwrap_err().message().contains("too long"));
    }
}
