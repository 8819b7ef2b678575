//! When a key ends, as it is typed.

use std::str::FromStr;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::{Exit, Failure};

/// The end of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    After(Duration),
    At(SystemTime),
}

impl Ending {
    /// `None` beyond the end of all times.
    pub fn from(self, now: SystemTime) -> Option<SystemTime> {
        match self {
            Self::After(life) => now.checked_add(life),
            Self::At(time) => Some(time),
        }
    }
}

impl FromStr for Ending {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(life) = parse_life(text) {
            return Ok(Self::After(life));
        }
        let of_day = |date: Date| Some(date.to_zoned(TimeZone::UTC).ok()?.timestamp());
        let stamp = match text.parse::<Timestamp>() {
            Ok(stamp) => Some(stamp),
            Err(_) => text.parse::<Date>().ok().and_then(of_day),
        };
        stamp
            .map(|stamp| Self::At(stamp.into()))
            .ok_or_else(|| format!("{text:?} is neither a time such as 90d nor a date such as 2027-01-31"))
    }
}

/// The end of a key that is made now, if it is to have one.
///
/// # Errors
/// For a time that is over.
pub fn expiry(ending: Option<Ending>) -> Result<Option<SystemTime>, Failure> {
    let now = SystemTime::now();
    match ending.map(|ending| ending.from(now)) {
        None => Ok(None),
        Some(Some(at)) if at > now => Ok(Some(at)),
        Some(_) => Err(Failure::new(
            Exit::Usage,
            "--expires is in the past, or beyond all calendars",
        )),
    }
}

/// A number of seconds, minutes, hours, days or weeks. Nothing at all is no life.
pub fn parse_life(text: &str) -> Result<Duration, String> {
    let malformed = || format!("{text:?} is not a time such as 90d, 12h or 30m");
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let count: u64 = text[..digits].parse().map_err(|_| malformed())?;
    let unit: u64 = match &text[digits..] {
        "s" => 1,
        "m" | "min" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        _ => return Err(malformed()),
    };
    match count.checked_mul(unit) {
        Some(seconds) if seconds > 0 => Ok(Duration::from_secs(seconds)),
        _ => Err(malformed()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lives_and_dates_are_read() {
        let day = Duration::from_secs(86_400);
        assert_eq!("90d".parse(), Ok(Ending::After(90 * day)));
        assert_eq!("2w".parse(), Ok(Ending::After(14 * day)));
        let at = SystemTime::UNIX_EPOCH + day;
        assert_eq!("1970-01-02".parse(), Ok(Ending::At(at)));
        assert_eq!("1970-01-02T01:00:00+01:00".parse(), Ok(Ending::At(at)));
        for text in [
            "",
            "0d",
            "5",
            "5 d",
            "-1d",
            "soon",
            "99999999999999999999d",
            "18446744073709551615w",
        ] {
            assert!(text.parse::<Ending>().is_err(), "{text}");
        }
        assert_eq!(Ending::After(Duration::MAX).from(SystemTime::now()), None);
    }
}
