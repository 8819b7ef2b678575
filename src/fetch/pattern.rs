//! What a reader will want next, from what it read so far: arithmetic alone.
//!
//! Three habits are known: reading on (the kernel's own requests overtake one another a little), and reading at equal
//! distances, forwards or backwards. Whoever jumps about gets nothing ahead.

use std::ops::Range;

use tokio::time::Instant;

use crate::cache::BLOCK;

/// A read that begins no farther than this from where the last one ended reads on, in bytes; or than two such reads,
/// for the kernel sends several at a time.
const NEAR: u64 = 256 * 1024;
/// Reads of one habit before it counts as one.
const SURE: u32 = 2;
/// What is had ahead at first, in bytes, and how often as much when the reader had to wait all the same: on a line of
/// 100 ms what it can bring is on the way after four round trips.
const FIRST_WINDOW: u64 = 512 * 1024;
const GROWTH: u64 = 4;
/// A larger window than this must be worth it: it grows only as long as the reader gets faster by a quarter each time. A
/// line that is full gets no faster by more requests that wait in it.
const SURELY_WORTH_IT: u64 = 8 << 20;
/// What one request brings at least and at most when a window is filled, in bytes; so many of them are on the way.
const LEAST_STEP: u64 = 256 * 1024;
const LARGEST_STEP: u64 = 4 << 20;
const STEPS: u64 = 16;
/// Reads at equal distances are had ahead so many at first, and at most.
const FIRST_STRIDES: u64 = 4;
const MOST_STRIDES: u64 = 32;

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
    /// When the window got its size and where the reader was then, and how fast it got on before, in bytes a second.
    grown: Option<(Instant, u64)>,
    speed: f64,
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
            grown: None,
            speed: 0.0,
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
        if !first && read.start.abs_diff(self.frontier) <= NEAR.max(2 * len) && !backwards {
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
        self.grown = None;
        self.strides = FIRST_STRIDES;
        self.asked = align_up(read.end).into();
        Plan {
            ranges: Vec::new(),
            anew,
        }
    }

    /// The reader had to wait for what it reads.
    pub(super) fn stalled(&mut self, now: Instant) {
        self.strides = (self.strides * 2).min(MOST_STRIDES);
        let larger = (self.window * GROWTH).min(self.largest_window);
        if larger > SURELY_WORTH_IT {
            let (since, from) = *self.grown.get_or_insert((now, self.frontier));
            let (took, read) = (now - since, self.frontier.saturating_sub(from));
            // Only what was asked for since comes at the new pace.
            if read < 2 * self.window {
                return;
            }
            let speed = read as f64 / took.as_secs_f64().max(f64::EPSILON);
            if speed < self.speed * 1.25 {
                self.grown = Some((now, self.frontier));
                return;
            }
            self.speed = speed;
        }
        self.grown = Some((now, self.frontier));
        self.window = larger;
    }

    /// Nothing from here on was asked for after all, though it was planned.
    pub(super) fn give_back(&mut self, from: u64) {
        self.asked = self.asked.min(from.into());
    }

    fn read_on(&mut self, read: &Range<u64>, size: u64) -> Plan {
        if read.end > self.frontier {
            if self.streak < SURE {
                self.asked = align_up(read.end).into();
            }
            self.frontier = read.end;
            self.streak += 1;
        }
        let mut plan = Plan {
            ranges: Vec::new(),
            anew: false,
        };
        if self.streak < SURE {
            return plan;
        }
        let from = u64::try_from(self.asked)
            .unwrap_or(0)
            .max(align_up(self.frontier))
            .min(size);
        let to = align_up(self.frontier.saturating_add(self.window)).min(size);
        let step = align_up((self.window / STEPS).clamp(LEAST_STEP, LARGEST_STEP));
        // A little at a time would be many requests.
        if to > from && (to - from >= step || to == size) {
            let mut at = from;
            while at < to {
                let end = (at + step).min(to);
                plan.ranges.push(at..end);
                at = end;
            }
            self.asked = to.into();
        }
        plan
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

    #[test]
    fn reading_on_has_a_window_ahead_that_grows_when_it_was_too_small() {
        let mut pattern = pattern();
        assert_eq!(pattern.note(&at(0, 128 * KIB), SIZE).ranges, []);
        let plan = pattern.note(&at(128 * KIB, 128 * KIB), SIZE);
        assert_eq!(plan.ranges, [256 * KIB..512 * KIB, 512 * KIB..768 * KIB]);
        assert_eq!(pattern.note(&at(256 * KIB, 128 * KIB), SIZE).ranges, []);
        assert_eq!(
            pattern.note(&at(384 * KIB, 128 * KIB), SIZE).ranges,
            [768 * KIB..1024 * KIB]
        );
        for _ in 0..20 {
            pattern.stalled(Instant::now());
        }
        let plan = pattern.note(&at(512 * KIB, 128 * KIB), SIZE);
        assert_eq!(plan.ranges.len(), 16);
        assert_eq!(
            plan.ranges.last().map(|range| range.end),
            Some(640 * KIB + SURELY_WORTH_IT)
        );
    }

    /// A reader on a line that brings what is on the way after `delay` seconds, and `rate` bytes a second at most.
    fn window_on_a_line(delay: f64, rate: f64) -> u64 {
        let mut pattern = Pattern::new(96 << 20);
        let (start, mut passed, piece) = (Instant::now(), 0.0, 128 * KIB);
        for number in 0..SIZE / piece {
            pattern.note(&at(number * piece, piece), SIZE);
            passed += piece as f64 / rate.min(pattern.window as f64 / delay);
            pattern.stalled(start + Duration::from_secs_f64(passed));
        }
        pattern.window
    }

    #[test]
    fn a_window_grows_as_long_as_that_makes_the_reader_faster() {
        assert_eq!(window_on_a_line(0.1, 1e12), 96 << 20);
        assert_eq!(window_on_a_line(0.1, 9e8), 96 << 20);
        let bandwidth_times_delay = |window: u64| (window as f64) / (1e7 * 0.1);
        let found = bandwidth_times_delay(window_on_a_line(0.1, 1e7));
        assert!((1.0..40.0).contains(&found), "{found} times as much as is on the way");
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
                if stalled {
                    pattern.stalled(Instant::now());
                }
                let plan = pattern.note(&read, size);
                let bytes: u64 = plan.ranges.iter().map(|range| range.end - range.start).sum();
                prop_assert!(bytes <= largest + 2 * BLOCK, "{bytes} of {largest}");
                for range in plan.ranges {
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
