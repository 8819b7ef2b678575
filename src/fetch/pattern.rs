//! What a reader will want next, from what it read so far: arithmetic alone.
//!
//! Three habits are known: reading on (the kernel's own requests overtake one another a little), and reading at equal
//! distances, forwards or backwards. Whoever jumps about gets nothing ahead.

use std::ops::Range;
use std::time::Duration;

use tokio::time::Instant;

use crate::cache::BLOCK;

/// A read that begins no farther than this from where the last one ended reads on, in bytes; or than two such reads,
/// for the kernel sends several at a time.
const NEAR: u64 = 256 * 1024;
/// Reads of one habit before it counts as one.
const SURE: u32 = 2;
/// What is had ahead at first, in bytes, and how often as much when the reader has to wait all the same.
const FIRST_WINDOW: u64 = 1 << 20;
const GROWTH: u64 = 16;
/// So far a window grows before it is known what the line can bring, in bytes.
const BLIND_WINDOW: u64 = 32 << 20;
/// What a reader has ahead then, if it is more: so many times what is on the way at its speed. On a line that is full,
/// more would only be in others' way.
const TIMES_ON_THE_WAY: f64 = 4.0;
/// What one request brings at least and at most when a window is filled, in bytes; so many of them make a window.
const LEAST_STEP: u64 = 1 << 20;
const LARGEST_STEP: u64 = 4 << 20;
const STEPS: u64 = 4;
/// What a reader has ahead on a disk that he has to wait for, in bytes: no disk takes long to answer.
const DISK_WINDOW: u64 = 8 << 20;
/// Reads at equal distances are had ahead so many at first, and at most.
const FIRST_STRIDES: u64 = 4;
const MOST_STRIDES: u64 = 32;

/// An answer of fewer bytes says nothing about how fast the line is: they came with its beginning.
const TELLING: u64 = 256 * 1024;

/// How an answer came.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Pace {
    /// Until it began.
    pub(super) delay: Duration,
    pub(super) bytes: u64,
    /// What they took from then on.
    pub(super) took: Duration,
}

impl Pace {
    /// Of an answer that is still coming.
    pub(super) fn of_its_beginning(delay: Duration) -> Self {
        Self {
            delay,
            bytes: 0,
            took: Duration::ZERO,
        }
    }
}

/// What to ask for ahead of a reader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// In the order of need; they overlap nothing that was planned before, unless the reader turned round.
    pub(super) ranges: Vec<Range<u64>>,
    /// Whether what was asked for before is of no more use.
    pub(super) anew: bool,
}

/// The habits of one reader.
#[derive(Debug)]
pub(super) struct Pattern {
    /// The most that may be had ahead, in bytes.
    largest_window: u64,
    last: Option<Range<u64>>,
    /// The distance between the last two beginnings, and how often it came again.
    distance: i128,
    repeats: u32,
    /// Where reading on has got to, and in how many reads.
    frontier: u64,
    streak: u32,
    window: u64,
    /// Whoever waits for what lies before this waits for what was asked for before the window got its size.
    paced_from: u64,
    /// When the window got its size and where the reader was then, once it was as large as is good blindly.
    sized: Option<(Instant, u64)>,
    /// How long it takes at least until an answer begins, if that is known.
    delay: Option<Duration>,
    /// How many bytes a second one answer brought at best.
    rate: Option<f64>,
    strides: u64,
    /// Ahead of this nothing was asked for yet: an end of bytes, or a beginning of a read at equal distances.
    asked: i128,
}

impl Pattern {
    pub(super) fn new(largest_window: u64) -> Self {
        Self {
            largest_window,
            last: None,
            distance: 0,
            repeats: 0,
            frontier: 0,
            streak: 0,
            window: FIRST_WINDOW.min(largest_window),
            paced_from: 0,
            sized: None,
            delay: None,
            rate: None,
            strides: FIRST_STRIDES,
            asked: 0,
        }
    }

    pub(super) fn is_new(&self) -> bool {
        self.last.is_none()
    }

    /// Takes note of a read, and says what to ask for beside it. Only blocks as a whole are asked for.
    pub(super) fn note(&mut self, read: &Range<u64>, size: u64) -> Plan {
        let distance = self
            .last
            .as_ref()
            .map(|last| i128::from(read.start) - i128::from(last.start));
        self.repeats = match distance {
            Some(distance) if distance == self.distance && distance != 0 => self.repeats + 1,
            _ => 0,
        };
        self.distance = distance.unwrap_or(0);
        let len = (read.end - read.start).max(1);
        let first = self.last.replace(read.clone()).is_none();
        let backwards = self.distance < 0 && self.repeats >= SURE;
        if !first && read.start.abs_diff(self.frontier) <= near(len) && !backwards {
            return self.read_on(read, size);
        }
        let strides = self.repeats >= SURE;
        let anew = self.streak >= SURE || (self.repeats == 0 && !first);
        // A read that no habit explains begins another one.
        self.streak = 1;
        self.frontier = read.end;
        if strides {
            return self.stride(read.start, len, size);
        }
        self.window = FIRST_WINDOW.min(self.largest_window);
        self.sized = None;
        self.strides = FIRST_STRIDES;
        self.asked = align_up(read.end).into();
        Plan {
            ranges: Vec::new(),
            anew,
        }
    }

    /// Whether the reader is so far past these bytes that it will hardly come back for them.
    pub(super) fn has_passed(&self, bytes: &Range<u64>) -> bool {
        let Some(last) = &self.last else { return false };
        let near = near(last.end - last.start);
        if self.distance < 0 && self.repeats >= SURE {
            bytes.start > last.end + near
        } else {
            bytes.end + near < last.start
        }
    }

    /// An answer for which nothing else was in the way came like this.
    pub(super) fn answered(&mut self, pace: Pace) {
        self.delay = Some(self.delay.map_or(pace.delay, |delay| delay.min(pace.delay)));
        if pace.bytes >= TELLING {
            let rate = pace.bytes as f64 / pace.took.as_secs_f64().max(f64::EPSILON);
            self.rate = Some(self.rate.map_or(rate, |best| best.max(rate)));
        }
    }

    /// What a reader has ahead who takes so many bytes a second, if it is known how long that must last.
    fn window_for(&self, rate: f64) -> Option<u64> {
        let on_the_way = rate * self.delay?.as_secs_f64();
        Some((TIMES_ON_THE_WAY * on_the_way) as u64)
    }

    /// The reader has to wait for what it reads, though it is on the way. Says what to ask for beside it.
    pub(super) fn stalled(&mut self, read: &Range<u64>, size: u64, now: Instant) -> Vec<Range<u64>> {
        self.strides = (self.strides * 2).min(MOST_STRIDES);
        if self.streak < SURE {
            return Vec::new();
        }
        // Only what was asked for since comes at the new pace.
        if read.start < self.paced_from {
            return Vec::new();
        }
        let window = match self.sized {
            None => {
                let known = self.rate.and_then(|rate| self.window_for(rate));
                (self.window * GROWTH).min(BLIND_WINDOW).max(known.unwrap_or(0))
            }
            Some((since, from)) => {
                let passed = self.frontier.saturating_sub(from) as f64;
                let took = (now - since).as_secs_f64().max(f64::EPSILON);
                let enough = self.window_for(passed / took).unwrap_or(self.largest_window);
                enough.max(BLIND_WINDOW)
            }
        };
        if self.sized.is_some() || window >= BLIND_WINDOW {
            self.sized = Some((now, self.frontier));
        }
        self.window = align_up(window).min(self.largest_window);
        self.paced_from = u64::try_from(self.asked).unwrap_or(0);
        self.fill(size)
    }

    /// The reader has to wait for what is on its way from a disk. Says what to ask for beside it.
    pub(super) fn stalled_by_disk(&mut self, size: u64) -> Vec<Range<u64>> {
        if self.streak < SURE || self.window >= DISK_WINDOW {
            return Vec::new();
        }
        self.window = DISK_WINDOW.min(self.largest_window);
        self.fill(size)
    }

    /// Nothing from here on was asked for after all, though it was planned.
    pub(super) fn give_back(&mut self, from: u64) {
        self.asked = self.asked.min(from.into());
    }

    fn read_on(&mut self, read: &Range<u64>, size: u64) -> Plan {
        if read.end > self.frontier {
            if self.streak < SURE {
                self.paced_from = align_up(read.end);
                self.asked = self.paced_from.into();
            }
            self.frontier = read.end;
            self.streak += 1;
        }
        let ranges = if self.streak < SURE {
            Vec::new()
        } else {
            self.fill(size)
        };
        Plan { ranges, anew: false }
    }

    /// What the window has room for.
    fn fill(&mut self, size: u64) -> Vec<Range<u64>> {
        let from = u64::try_from(self.asked)
            .unwrap_or(0)
            .max(align_up(self.frontier))
            .min(size);
        let to = align_up(self.frontier.saturating_add(self.window)).min(size);
        let step = align_up((self.window / STEPS).clamp(LEAST_STEP, LARGEST_STEP));
        let mut ranges = Vec::new();
        // A little at a time would be many requests.
        if to > from && (to - from >= step.min(self.window / 2) || to == size) {
            let mut at = from;
            while at < to {
                let end = (at + step).min(to);
                ranges.push(at..end);
                at = end;
            }
            self.asked = to.into();
        }
        ranges
    }

    /// What lies at the next equal distances.
    fn stride(&mut self, start: u64, len: u64, size: u64) -> Plan {
        let mut ranges = Vec::new();
        let beginning = self.repeats == SURE;
        let afford = (self.largest_window / align_up(len).max(BLOCK)).min(self.strides);
        for number in 1..=afford {
            let at = i128::from(start) + self.distance * i128::from(number);
            let ahead = beginning || (at - self.asked).signum() == self.distance.signum();
            match u64::try_from(at) {
                Ok(place) if place < size && ahead => {
                    ranges.push(place..(place + len).min(size));
                    self.asked = at;
                }
                Ok(place) if place < size => {}
                _ => break,
            }
            if beginning && number == 1 {
                self.asked = at;
            }
        }
        Plan { ranges, anew: false }
    }
}

/// As near as reads are that overtake one another.
fn near(len: u64) -> u64 {
    NEAR.max(2 * len)
}

fn align_up(bytes: u64) -> u64 {
    bytes.checked_next_multiple_of(BLOCK).unwrap_or(bytes)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use proptest::prelude::*;

    const KIB: u64 = 1024;
    const SIZE: u64 = 1 << 30;

    fn pattern() -> Pattern {
        Pattern::new(32 << 20)
    }

    fn at(start: u64, len: u64) -> Range<u64> {
        start..start + len
    }

    #[test]
    fn a_jump_and_a_first_read_bring_nothing_ahead() {
        let mut pattern = pattern();
        for start in [0, 500 << 20, 3 << 20, 77 << 20, 76 << 20, 900 << 20] {
            assert_eq!(pattern.note(&at(start, 4 * KIB), SIZE).ranges, [], "{start}");
        }
    }

    const PIECE: u64 = 128 * KIB;

    fn read_on(pattern: &mut Pattern, pieces: Range<u64>) -> Vec<Range<u64>> {
        pieces
            .flat_map(|piece| pattern.note(&at(piece * PIECE, PIECE), SIZE).ranges)
            .collect()
    }

    #[test]
    fn reading_on_has_a_window_ahead() {
        let mut pattern = pattern();
        assert_eq!(read_on(&mut pattern, 0..1), []);
        assert_eq!(read_on(&mut pattern, 1..2), [2 * PIECE..10 * PIECE], "one request");
        assert_eq!(read_on(&mut pattern, 2..5), []);
        assert_eq!(read_on(&mut pattern, 5..6), [10 * PIECE..14 * PIECE]);
    }

    #[test]
    fn a_window_grows_when_it_was_too_small_and_not_for_what_was_asked_for_before() {
        let mut pattern = pattern();
        let now = Instant::now();
        assert_eq!(pattern.stalled(&at(0, PIECE), SIZE, now), [], "nobody reads on yet");
        read_on(&mut pattern, 0..2);
        assert_eq!(pattern.stalled(&at(PIECE, PIECE), SIZE, now), [], "the first request");
        let more = pattern.stalled(&at(2 * PIECE, PIECE), SIZE, now);
        assert_eq!(more.first().map(|range| range.start), Some(10 * PIECE));
        assert_eq!(
            more.last().map(|range| range.end),
            Some(2 * PIECE + GROWTH * FIRST_WINDOW)
        );
        assert_eq!(
            pattern.stalled(&at(3 * PIECE, PIECE), SIZE, now),
            [],
            "asked for before"
        );
        read_on(&mut pattern, 2..10);
        let more = pattern.stalled(&at(10 * PIECE, PIECE), SIZE, now);
        assert_eq!(more.last().map(|range| range.end), Some(10 * PIECE + BLIND_WINDOW));
        assert!(more.len() <= 8, "{more:?}");
    }

    #[test]
    fn a_window_on_a_disk_grows_once() {
        let mut pattern = pattern();
        assert_eq!(pattern.stalled_by_disk(SIZE), [], "nobody reads on yet");
        read_on(&mut pattern, 0..2);
        let more = pattern.stalled_by_disk(SIZE);
        assert_eq!(more.first().map(|range| range.start), Some(10 * PIECE));
        assert_eq!(more.last().map(|range| range.end), Some(2 * PIECE + DISK_WINDOW));
        assert_eq!(pattern.stalled_by_disk(SIZE), []);
    }

    /// What a reader has ahead at last, and the seconds until it has all, on a line that brings what is asked for after
    /// `delay` seconds, and `rate` bytes a second at most.
    fn on_a_line(pattern: &mut Pattern, from: u64, delay: f64, rate: f64) -> (u64, f64) {
        let start = Instant::now();
        let (mut passed, mut line_is_free) = (0.0_f64, 0.0_f64);
        let mut arrivals = std::collections::BTreeMap::new();
        let mut ask = |range: Range<u64>, now: f64, arrivals: &mut std::collections::BTreeMap<u64, f64>| {
            for piece in range.start / PIECE..range.end.div_ceil(PIECE) {
                line_is_free = line_is_free.max(now + delay) + PIECE as f64 / rate;
                arrivals.entry(piece).or_insert(line_is_free);
            }
        };
        for piece in from / PIECE..SIZE / PIECE {
            let read = at(piece * PIECE, PIECE);
            let plan = pattern.note(&read, SIZE);
            let is_asked_for = !arrivals.contains_key(&piece);
            if is_asked_for {
                ask(read.clone(), passed, &mut arrivals);
            }
            plan.ranges
                .into_iter()
                .for_each(|range| ask(range, passed, &mut arrivals));
            if arrivals[&piece] > passed {
                let more = pattern.stalled(&read, SIZE, start + Duration::from_secs_f64(passed));
                more.into_iter().for_each(|range| ask(range, passed, &mut arrivals));
                if is_asked_for {
                    let after = Duration::from_secs_f64(arrivals[&piece] - passed);
                    pattern.answered(Pace::of_its_beginning(after));
                }
                passed = arrivals[&piece];
            }
        }
        (pattern.window, passed)
    }

    #[test]
    fn a_window_is_a_few_times_bandwidth_and_delay() {
        for (delay, rate) in [(0.1, 1e12), (0.1, 6e8), (0.02, 1.25e8), (0.1, 1e7), (0.0005, 8e8)] {
            let mut pattern = Pattern::new(96 << 20);
            let (window, passed) = on_a_line(&mut pattern, 0, delay, rate);
            let on_the_way = (rate * delay).min((96 << 20) as f64);
            let least = (on_the_way as u64).clamp(BLIND_WINDOW, 96 << 20);
            let most = ((on_the_way * 6.0) as u64).clamp(BLIND_WINDOW, 96 << 20);
            assert!((least..=most).contains(&window), "{window} at {delay} s, {rate} B/s");
            let best = (SIZE as f64 / rate).max(SIZE as f64 / (96 << 20) as f64 * delay);
            assert!(
                passed < best * 1.05 + 7.0 * delay,
                "{passed} s of {best} at {delay} s, {rate} B/s"
            );
        }
    }

    #[test]
    fn a_window_fits_the_line_at_once_when_an_answer_told_how_fast_it_is() {
        let window = |bytes, took_ms| {
            let mut pattern = Pattern::new(96 << 20);
            pattern.answered(Pace {
                delay: Duration::from_millis(100),
                bytes,
                took: Duration::from_millis(took_ms),
            });
            read_on(&mut pattern, 0..2);
            pattern.stalled(&at(2 * PIECE, PIECE), SIZE, Instant::now());
            pattern.window
        };
        assert_eq!(window(1 << 20, 10), 40 << 20);
        assert_eq!(window(1 << 20, 1), 96 << 20);
        assert_eq!(window(1 << 20, 1000), GROWTH * FIRST_WINDOW);
        assert_eq!(window(64 << 10, 1), GROWTH * FIRST_WINDOW, "too little to tell");
    }

    /// What was measured in one place says nothing about the next.
    #[test]
    fn a_window_grows_again_after_a_jump() {
        let mut pattern = Pattern::new(96 << 20);
        let (at_first, _) = on_a_line(&mut pattern, SIZE / 2, 0.1, 1e12);
        assert!(at_first > BLIND_WINDOW, "{at_first}");
        assert_eq!(on_a_line(&mut pattern, 0, 0.1, 1e12).0, at_first);
    }

    #[test]
    fn requests_that_overtake_one_another_read_on() {
        let mut pattern = pattern();
        let order = [0, 2, 1, 3, 5, 4, 7, 6];
        let plans: Vec<_> = order
            .iter()
            .map(|piece| pattern.note(&at(piece * 128 * KIB, 128 * KIB), SIZE))
            .collect();
        assert!(plans.iter().all(|plan| !plan.anew), "{plans:?}");
        assert!(plans.iter().any(|plan| !plan.ranges.is_empty()), "{plans:?}");
    }

    #[test]
    fn reading_backwards_is_seen() {
        let mut pattern = pattern();
        let step = 128 * KIB;
        let planned: Vec<Range<u64>> = (1..12)
            .flat_map(|number| pattern.note(&at((900 << 20) - number * step, step), SIZE).ranges)
            .collect();
        let places: Vec<u64> = planned.iter().map(|range| ((900 << 20) - range.start) / step).collect();
        let expected: Vec<u64> = (places[0]..places[0] + places.len() as u64).collect();
        assert_eq!(places, expected, "each once, in order");
        assert!(places.len() >= 8, "{places:?}");
    }

    #[test]
    fn equal_distances_are_seen() {
        let mut pattern = pattern();
        let planned: Vec<u64> = (0..10)
            .flat_map(|number| pattern.note(&at(number * (5 << 20) + 3, 4 * KIB), SIZE).ranges)
            .map(|range| range.start / (5 << 20))
            .collect();
        let expected: Vec<u64> = (planned[0]..planned[0] + planned.len() as u64).collect();
        assert_eq!(planned, expected);
        assert_eq!(planned[0], 4);
        assert_eq!(planned.last(), Some(&13));
    }

    #[test]
    fn what_was_given_back_is_planned_again() {
        let mut pattern = pattern();
        pattern.note(&at(0, 128 * KIB), SIZE);
        pattern.note(&at(128 * KIB, 128 * KIB), SIZE);
        pattern.give_back(512 * KIB);
        let plan = pattern.note(&at(256 * KIB, 128 * KIB), SIZE);
        assert_eq!(plan.ranges.first().map(|range| range.start), Some(512 * KIB));
    }

    #[test]
    fn a_jump_says_that_what_was_ahead_is_of_no_more_use() {
        let mut pattern = pattern();
        for piece in 0..4 {
            pattern.note(&at(piece * 128 * KIB, 128 * KIB), SIZE);
        }
        assert!(pattern.note(&at(500 << 20, 4 * KIB), SIZE).anew);
    }

    proptest! {
        #[test]
        fn plans_lie_in_the_object_and_within_the_window(
            reads in proptest::collection::vec((0u64..4 << 20, 1u64..300_000, any::<bool>()), 1..60),
            size in 1u64..4 << 20,
            largest in (1u64..64).prop_map(|blocks| blocks * BLOCK),
        ) {
            let mut pattern = Pattern::new(largest);
            for (start, len, stalled) in reads {
                let read = start.min(size)..(start + len).min(size);
                if read.is_empty() {
                    continue;
                }
                let mut ranges = pattern.note(&read, size).ranges;
                if stalled {
                    ranges.extend(pattern.stalled(&read, size, Instant::now()));
                }
                let bytes: u64 = ranges.iter().map(|range| range.end - range.start).sum();
                prop_assert!(bytes <= largest + 2 * BLOCK, "{bytes} of {largest}");
                for range in ranges {
                    prop_assert!(range.start < range.end && range.end <= size);
                }
            }
        }

        #[test]
        fn whoever_reads_on_has_every_byte_ahead_once(pieces in proptest::collection::vec(1u64..200_000, 3..80)) {
            let size = pieces.iter().sum::<u64>();
            let mut pattern = pattern();
            let (mut start, mut end_of_ahead) = (0, None);
            for len in pieces {
                for range in pattern.note(&at(start, len), size).ranges {
                    prop_assert!(end_of_ahead.is_none_or(|end| end <= range.start));
                    prop_assert!(range.start >= start + len || range.start % BLOCK == 0);
                    end_of_ahead = Some(range.end);
                }
                start += len;
            }
        }
    }
}
