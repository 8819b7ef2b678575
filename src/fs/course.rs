//! Which directories somebody who walks through a tree will want next.
//!
//! `find`, `du`, `ls -R`, `tar` and `rm -r` list a directory, then the first one in it with all that is below, then the
//! next one. `ls */` stays at one level. A course is one such walk: it knows where the walker is and what comes after
//! that, as far as listings are known. It asks nobody; who lists ahead is `ahead`.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::Ino;
use crate::model::Name;

/// Directories that were listed one after the other before they count as a walk: the one above, and two in it.
const SURE: u32 = 3;
/// Who goes from a directory into the first one in it, so soon after it was listed, probably walks: programs are this quick
/// and people are not.
const SOON: Duration = Duration::from_millis(100);
/// A step may leave out so many, as long as it isn't sure that somebody walks.
const SKIPS: usize = 2;
/// The same afterwards: `ls` sorts by a language's rules, not by bytes.
const SKIPS_WHEN_SURE: usize = 16;
/// How many that were left out are remembered: the walker may come back to them.
const MOST_PASSED: usize = 64;
/// How many a course knows beyond the walker's place.
const MOST_PLANNED: usize = 1024;
/// How many before the walker are listed at most.
const WINDOW: usize = 32;
/// Steps that tell how fast the walker is.
const STEPS_OF_PACE: usize = 8;

/// A directory that the walker may come to.
pub(super) struct Planned<Held> {
    pub ino: Ino,
    pub parent: Ino,
    pub name: Name,
    /// Levels below the course's first directory.
    depth: u32,
    listed: Listed,
    /// Keeps what was listed until the walker comes.
    held: Option<Held>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Listed {
    No,
    OnTheWay,
    Yes,
}

/// How far down the walker goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// Into everything, as far as is known.
    Everything,
    /// Not below this level.
    Level(u32),
}

/// Whether somebody walks here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Confidence {
    None,
    /// So it begins: half as many are listed ahead.
    Some,
    Sure,
}

/// A child of a directory that was listed.
pub(super) struct Subdirectory {
    pub ino: Ino,
    pub name: Name,
}

/// One walk.
pub(super) struct Course<Held> {
    /// Where the walker is.
    at: Ino,
    depth: u32,
    /// Whether what is in that directory is planned.
    entered: bool,
    /// When that was.
    entered_at: Instant,
    confidence: Confidence,
    /// How many were listed ahead before that was sure.
    risked: usize,
    steps: u32,
    /// Steps that went on to another directory than one in the last.
    advances: u32,
    reach: Reach,
    /// What comes, in the walk's order.
    ahead: VecDeque<Planned<Held>>,
    /// What was left out, the latest last.
    passed: VecDeque<Planned<Held>>,
    pace: VecDeque<Instant>,
}

impl<Held> Course<Held> {
    /// A walk that begins with this directory; `siblings` come after it.
    pub fn beginning(at: Ino, parent: Option<Ino>, siblings: impl IntoIterator<Item = Subdirectory>) -> Self {
        let planned = |sibling: Subdirectory| {
            Some(Planned {
                ino: sibling.ino,
                parent: parent?,
                name: sibling.name,
                depth: 0,
                listed: Listed::No,
                held: None,
            })
        };
        Self {
            at,
            depth: 0,
            entered: false,
            entered_at: Instant::now(),
            confidence: Confidence::None,
            risked: 0,
            steps: 1,
            advances: 0,
            reach: Reach::Everything,
            ahead: siblings.into_iter().filter_map(planned).take(MOST_PLANNED).collect(),
            passed: VecDeque::new(),
            pace: VecDeque::from([Instant::now()]),
        }
    }

    /// Somebody lists a directory: whether it is this course's walker.
    pub fn step(&mut self, ino: Ino) -> bool {
        if self.at == ino {
            return true;
        }
        let inside = self
            .ahead
            .iter()
            .take_while(|planned| planned.depth > self.depth)
            .count();
        let skips = match self.confidence {
            Confidence::Sure => SKIPS_WHEN_SURE,
            Confidence::None | Confidence::Some => SKIPS,
        };
        let within = |planned: &VecDeque<Planned<Held>>, from: usize| {
            let mut places = planned.iter().skip(from).take(skips + 1);
            places.position(|planned| planned.ino == ino).map(|at| from + at)
        };
        let mut goes_straight_in = false;
        let reached = match within(&self.ahead, 0).filter(|place| *place < inside) {
            Some(place) => {
                goes_straight_in = place == 0 && self.entered_at.elapsed() < SOON;
                self.reach = Reach::Everything;
                self.take(place)
            }
            None => match within(&self.ahead, inside) {
                Some(place) if inside > 0 => {
                    // It was not interested in what is in the last one.
                    self.reach = Reach::Level(self.depth);
                    let reached = self.take(place);
                    self.ahead.retain(|planned| planned.depth <= self.depth);
                    self.advances += 1;
                    reached
                }
                Some(place) => {
                    self.advances += 1;
                    self.take(place)
                }
                None => {
                    let place = self.passed.iter().position(|planned| planned.ino == ino);
                    self.advances += u32::from(place.is_some());
                    place.and_then(|place| self.passed.remove(place))
                }
            },
        };
        let Some(reached) = reached else { return false };
        self.at = ino;
        self.depth = reached.depth;
        self.entered = reached.listed == Listed::Yes;
        self.entered_at = Instant::now();
        self.steps += 1;
        if self.steps >= SURE && self.advances > 0 {
            self.confidence = Confidence::Sure;
        } else if goes_straight_in {
            self.confidence = Confidence::Some;
        }
        if self.pace.len() == STEPS_OF_PACE {
            self.pace.pop_front();
        }
        self.pace.push_back(Instant::now());
        true
    }

    /// Takes one out; what is before it was left out.
    fn take(&mut self, place: usize) -> Option<Planned<Held>> {
        self.passed.extend(self.ahead.drain(..place));
        let old = self.passed.len().saturating_sub(MOST_PASSED);
        self.passed.drain(..old);
        self.ahead.pop_front()
    }

    /// A directory was listed, by the walker or ahead of it: these are in it, in their order.
    pub fn found(&mut self, directory: Ino, inside: impl IntoIterator<Item = Subdirectory>) {
        let (place, depth) = if directory == self.at {
            if std::mem::replace(&mut self.entered, true) {
                return;
            }
            self.entered_at = Instant::now();
            (0, self.depth)
        } else {
            let mut planned = self.ahead.iter_mut().enumerate();
            let Some((place, planned)) = planned.find(|(_, planned)| planned.ino == directory) else {
                return;
            };
            if std::mem::replace(&mut planned.listed, Listed::Yes) == Listed::Yes {
                return;
            }
            (place + 1, planned.depth)
        };
        if matches!(self.reach, Reach::Level(level) if depth >= level) {
            return;
        }
        let after = self.ahead.split_off(place);
        let inside = inside.into_iter().take(MOST_PLANNED - place.min(MOST_PLANNED));
        self.ahead.extend(inside.map(|subdirectory| Planned {
            ino: subdirectory.ino,
            parent: directory,
            name: subdirectory.name,
            depth: depth + 1,
            listed: Listed::No,
            held: None,
        }));
        self.ahead.extend(after);
        self.ahead.truncate(MOST_PLANNED);
    }

    /// What to list now, so that `at_once` are on the way, or half as many in all if it may be no walk; `hold` gives what
    /// keeps it, or nothing for what cannot be listed. No more than the walker comes to before what is known of them is too
    /// old.
    pub fn next(
        &mut self,
        at_once: usize,
        ttl: Duration,
        mut hold: impl FnMut(&Planned<Held>) -> Option<Held>,
    ) -> Vec<Ino> {
        let most = match self.confidence {
            Confidence::None => return Vec::new(),
            Confidence::Some => (at_once / 2).saturating_sub(self.risked),
            Confidence::Sure => at_once,
        };
        let window = self.window(ttl);
        let on_the_way = |planned: &&Planned<Held>| planned.listed == Listed::OnTheWay;
        let mut room = at_once
            .saturating_sub(self.ahead.iter().filter(on_the_way).count())
            .min(most);
        let mut wanted = Vec::new();
        for planned in self.ahead.iter_mut().take(window) {
            if room == 0 {
                break;
            }
            if planned.listed != Listed::No {
                continue;
            }
            match hold(planned) {
                Some(held) => {
                    planned.held = Some(held);
                    planned.listed = Listed::OnTheWay;
                    wanted.push(planned.ino);
                    room -= 1;
                }
                None => planned.listed = Listed::Yes,
            }
        }
        if self.confidence == Confidence::Some {
            self.risked += wanted.len();
        }
        wanted
    }

    /// How many before the walker are worth listing: it comes to them within half the time that a listing counts.
    fn window(&self, ttl: Duration) -> usize {
        let (Some(first), Some(last)) = (self.pace.front(), self.pace.back()) else {
            return 0;
        };
        let steps = u128::from(self.pace.len().saturating_sub(1) as u64);
        let took = last.duration_since(*first).as_nanos().max(1);
        let reached = (ttl / 2).as_nanos() * steps / took;
        usize::try_from(reached).unwrap_or(usize::MAX).min(WINDOW)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(10);

    fn inside(numbers: impl IntoIterator<Item = u64>) -> Vec<Subdirectory> {
        let named = |number: u64| Subdirectory {
            ino: Ino(number),
            name: Name::new(number.to_string()).unwrap(),
        };
        numbers.into_iter().map(named).collect()
    }

    fn root() -> Course<()> {
        let mut course = Course::beginning(Ino(1), None, []);
        course.found(Ino(1), inside(10..100));
        course
    }

    fn next(course: &mut Course<()>) -> Vec<u64> {
        let wanted = course.next(8, TTL, |_| Some(()));
        wanted.into_iter().map(|ino| ino.0).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_ones_are_listed_in_order_as_many_as_are_let_at_once() {
        let mut course = root();
        tokio::time::advance(SOON).await;
        assert!(course.step(Ino(10)));
        course.found(Ino(10), []);
        assert_eq!(next(&mut course), [0; 0], "it may be one look into a directory");
        assert!(course.step(Ino(11)));
        assert_eq!(next(&mut course), [12, 13, 14, 15, 16, 17, 18, 19]);
        assert_eq!(next(&mut course), [0; 0]);
        course.found(Ino(15), []);
        course.found(Ino(12), []);
        assert_eq!(next(&mut course), [20, 21]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_goes_straight_into_the_first_one_has_half_as_many_ahead() {
        let mut course = root();
        assert!(course.step(Ino(10)));
        assert_eq!(next(&mut course), [11, 12, 13, 14]);
        course.found(Ino(11), inside([200, 201]));
        assert_eq!(next(&mut course), [0; 0]);
        assert!(course.step(Ino(11)));
        assert_eq!(next(&mut course), [200, 201, 15, 16, 17]);
        let mut course = root();
        assert!(course.step(Ino(11)));
        assert_eq!(next(&mut course), [0; 0], "that is not the first one");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_in_a_directory_comes_before_what_is_beside_it() {
        let mut course = root();
        for directory in [10, 11] {
            assert!(course.step(Ino(directory)));
            course.found(Ino(directory), []);
        }
        assert_eq!(next(&mut course).len(), 8);
        course.found(Ino(12), inside([200, 201]));
        course.found(Ino(13), inside([300]));
        assert_eq!(next(&mut course), [200, 201]);
        assert!(course.step(Ino(12)));
        assert!(course.step(Ino(200)));
        course.found(Ino(200), inside([400]));
        assert_eq!(
            next(&mut course),
            [400],
            "the walker waits for the one before by itself"
        );
        course.found(Ino(14), []);
        assert_eq!(next(&mut course), [300]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_walk_that_began_deep_goes_on_above() {
        let mut course = Course::<()>::beginning(Ino(1), None, []);
        course.found(Ino(1), inside(10..13));
        for (directory, within) in [(10, 20..22), (20, 0..0), (21, 0..0)] {
            assert!(course.step(Ino(directory)));
            course.found(Ino(directory), inside(within));
        }
        assert_eq!(next(&mut course), [11, 12]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_stays_at_one_level_gets_nothing_from_below() {
        let mut course = root();
        for directory in [10, 11] {
            assert!(course.step(Ino(directory)));
            course.found(Ino(directory), inside(directory * 100..directory * 100 + 3));
        }
        assert_eq!(next(&mut course), [12, 13, 14, 15, 16, 17, 18, 19]);
        course.found(Ino(12), inside([1200]));
        assert_eq!(next(&mut course), [20]);
        assert!(course.step(Ino(12)));
        course.found(Ino(13), []);
        assert_eq!(next(&mut course), [21]);
    }

    #[tokio::test(start_paused = true)]
    async fn another_order_is_followed_once_it_is_a_walk_and_jumps_are_none() {
        let mut course = root();
        assert!(!course.step(Ino(50)));
        for directory in [10, 11, 12] {
            assert!(course.step(Ino(directory)));
            course.found(Ino(directory), []);
        }
        for directory in [20, 13, 14, 22, 21] {
            assert!(course.step(Ino(directory)), "{directory}");
        }
        assert!(!course.step(Ino(60)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_walker_gets_what_it_reaches_in_time() {
        let mut course = root();
        for directory in 10..20 {
            tokio::time::advance(Duration::from_secs(1)).await;
            assert!(course.step(Ino(directory)));
            course.found(Ino(directory), []);
        }
        assert_eq!(next(&mut course), [20, 21, 22, 23, 24]);
        tokio::time::advance(Duration::from_secs(100)).await;
        assert!(course.step(Ino(20)));
        assert_eq!(next(&mut course), [0; 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn it_never_grows_beyond_its_bounds() {
        let mut course = Course::<()>::beginning(Ino(1), None, []);
        course.found(Ino(1), inside(10..10_000));
        assert_eq!(course.ahead.len(), MOST_PLANNED);
        assert!(course.step(Ino(10)));
        course.found(Ino(10), inside(20_000..30_000));
        assert_eq!(course.ahead.len(), MOST_PLANNED);
        for directory in [20_000, 20_001, 20_010, 20_020, 20_030, 20_040, 20_050, 20_060, 20_070] {
            assert!(course.step(Ino(directory)));
        }
        assert!(course.passed.len() <= MOST_PASSED);
    }
}
