//! A secret from a person: typed without being shown, or the first line of a pipe.

use std::io::{IsTerminal, Write};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use secrecy::SecretString;
use secrecy::zeroize::Zeroizing;

use super::exit::{Exit, Failure};
use crate::auth::store::MAX_SECRET;

/// What Ctrl-C types where it ends no process.
const CTRL_C: u8 = 3;

/// Asks for a secret if a person is there, else reads one line. Spaces around it are no part of it.
///
/// # Errors
/// When nothing was given, when it is too long or no text, and when the person pressed Ctrl-C.
pub fn read_secret(prompt: &str) -> Result<SecretString, Failure> {
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
    to_secret(&line)
}

fn to_secret(line: &[u8]) -> Result<SecretString, Failure> {
    let refuse = |sentence: &str| Err(Failure::new(Exit::Credentials, sentence));
    if line.contains(&CTRL_C) {
        return refuse("cancelled; nothing was changed");
    }
    match std::str::from_utf8(line).map(str::trim) {
        Err(_) => refuse("what was given is not text; nothing was changed"),
        Ok("") => refuse("no token was given; type it at the prompt, or pipe it in"),
        Ok(text) => Ok(text.into()),
    }
}

/// Up to the line's end and not a byte more: the rest belongs to others.
fn read_line(input: BorrowedFd<'_>) -> Result<Zeroizing<Vec<u8>>, Failure> {
    // Room for all at once: growing would leave copies behind.
    let mut line = Zeroizing::new(Vec::with_capacity(MAX_SECRET + 1));
    let mut byte = [0];
    while line.len() <= MAX_SECRET {
        match rustix::io::read(input, &mut byte) {
            Ok(0) => return Ok(line),
            Ok(_) if byte[0] == b'\n' => return Ok(line),
            Ok(_) => line.push(byte[0]),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(std::io::Error::from(error).into()),
        }
        if byte[0] == CTRL_C {
            return Ok(line);
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
        let line = read_line(reader.as_fd()).unwrap();
        assert_eq!(to_secret(&line).unwrap().expose_secret(), "token-1");
        let mut rest = [0; 20];
        let length = rustix::io::read(&reader, &mut rest).unwrap();
        assert_eq!(&rest[..length], b"the rest");
        drop(writer);
        assert_eq!(read_line(reader.as_fd()).unwrap().len(), 0);
    }

    #[test]
    fn what_is_no_secret_is_refused() {
        for (line, part) in [
            (&b""[..], "no token was given"),
            (b" \t\r", "no token was given"),
            (b"tok\x03", "cancelled"),
            (b"\xff\xfe", "not text"),
        ] {
            let failure = to_secret(line).unwrap_err();
            assert_eq!(failure.exit, Exit::Credentials);
            assert!(failure.message().contains(part), "{failure}");
        }
        let long = std::fs::File::open("/dev/zero").unwrap();
        assert!(read_line(long.as_fd()).unwrap_err().message().contains("too long"));
    }
}
