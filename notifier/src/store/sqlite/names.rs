//! Of whom something may be kept: who comes and has nothing costs the file no question.
//!
//! A Bloom filter of a fixed size. With a million names one stranger in fifty is asked for in vain, and
//! with very many more everybody is: as without it. Pure.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::atomic::{AtomicU64, Ordering};

/// A megabyte.
const BITS: u64 = 8 * 1024 * 1024;

/// How many bits each name sets.
const BITS_OF_A_NAME: u64 = 4;

/// Names of streams that are in the file, and perhaps others.
#[derive(Debug)]
pub(super) struct Names {
    words: Vec<AtomicU64>,
}

impl Names {
    pub(super) fn new() -> Self {
        Self {
            words: (0..BITS / 64).map(|_| AtomicU64::default()).collect(),
        }
    }

    /// Has a name from now on. It comes before the change that puts the name into the file, so that nobody
    /// who could know of that finds the name missing.
    pub(super) fn add(&self, name: &str) {
        for (word, bit) in self.bits(name) {
            word.fetch_or(bit, Ordering::Relaxed);
        }
    }

    /// Whether the name may be in the file; if not, it is certain that it is not.
    pub(super) fn may_have(&self, name: &str) -> bool {
        self.bits(name)
            .all(|(word, bit)| word.load(Ordering::Relaxed) & bit != 0)
    }

    /// The bits of a name, from the two halves of one hash
    /// (<https://www.eecs.harvard.edu/~michaelm/postscripts/rsa2008.pdf>).
    fn bits(&self, name: &str) -> impl Iterator<Item = (&AtomicU64, u64)> {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        let hash = hasher.finish();
        let (first, step) = (hash >> 32, (hash & u64::from(u32::MAX)) | 1);
        let bits = (0..BITS_OF_A_NAME).map(move |n| (first + n * step) % BITS);
        bits.filter_map(|bit| {
            let word = self.words.get(usize::try_from(bit / 64).ok()?)?;
            Some((word, 1 << (bit % 64)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_is_forgotten_and_few_strangers_are_taken_for_known() {
        const KNOWN: u32 = 1_000_000;
        let names = Names::new();
        assert!(!names.may_have("user:0"));
        for n in 0..KNOWN {
            names.add(&format!("user:{n}"));
        }
        assert!((0..KNOWN).all(|n| names.may_have(&format!("user:{n}"))));
        let strangers = (0..10_000).filter(|n| names.may_have(&format!("user:s{n}")));
        let taken_for_known = strangers.count();
        assert!(taken_for_known < 400, "{taken_for_known} of 10,000");
    }
}
