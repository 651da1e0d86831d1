//! Quantities as people write them: `30s`, `64KiB`.

use std::fmt;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};
use serde::ser::{Serialize, Serializer};

/// A duration written as `250ms`, `30s`, `5m`, `1h 30m` or `2d`. Never negative; a day has 24 hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HumanDuration(pub Duration);

impl HumanDuration {
    /// That many seconds.
    #[must_use]
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    fn parse(text: &str) -> Option<Self> {
        let span = text.parse::<jiff::Span>().ok()?;
        let duration = span
            .to_duration(jiff::SpanRelativeTo::days_are_24_hours())
            .ok()?;
        Duration::try_from(duration).ok().map(Self)
    }
}

impl From<HumanDuration> for Duration {
    fn from(duration: HumanDuration) -> Self {
        duration.0
    }
}

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::SignedDuration::try_from(self.0) {
            Ok(duration) => write!(f, "{duration:#}"),
            Err(_) => write!(f, "{:?}", self.0),
        }
    }
}

impl std::str::FromStr for HumanDuration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text).ok_or_else(|| format!("{text:?} is not a duration such as `30s` or `5m`"))
    }
}

impl Serialize for HumanDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HumanDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct DurationVisitor;
        impl Visitor<'_> for DurationVisitor {
            type Value = HumanDuration;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration with its unit, such as `30s`, `5m` or `250ms`")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<HumanDuration, E> {
                HumanDuration::parse(text)
                    .ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_str(DurationVisitor)
    }
}

/// A number of bytes written as `64KiB`, `1MiB`, or a bare number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HumanSize(pub u64);

impl HumanSize {
    /// That many KiB.
    #[must_use]
    pub const fn kib(kib: u64) -> Self {
        Self(kib * 1024)
    }

    /// The number of bytes, as far as this machine can address them.
    #[must_use]
    pub fn bytes(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl fmt::Display for HumanSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        match UNITS
            .iter()
            .find(|(unit, _)| self.0 >= *unit && self.0.is_multiple_of(*unit))
        {
            Some((unit, name)) => write!(f, "{}{name}", self.0 / unit),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl Serialize for HumanSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HumanSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SizeVisitor;
        impl Visitor<'_> for SizeVisitor {
            type Value = HumanSize;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as `64KiB` or a number of bytes")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<HumanSize, E> {
                text.parse::<bytesize::ByteSize>()
                    .map(|size| HumanSize(size.as_u64()))
                    .map_err(|_| E::invalid_value(Unexpected::Str(text), &self))
            }

            fn visit_u64<E: Error>(self, bytes: u64) -> Result<HumanSize, E> {
                Ok(HumanSize(bytes))
            }

            fn visit_i64<E: Error>(self, bytes: i64) -> Result<HumanSize, E> {
                u64::try_from(bytes)
                    .map(HumanSize)
                    .map_err(|_| E::invalid_value(Unexpected::Signed(bytes), &self))
            }
        }
        deserializer.deserialize_any(SizeVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize, serde::Serialize)]
    struct Units {
        time: HumanDuration,
        size: HumanSize,
    }

    fn read(time: &str, size: &str) -> Result<Units, toml::de::Error> {
        toml::from_str(&format!("time = {time}\nsize = {size}"))
    }

    #[test]
    fn units_are_read_as_people_write_them() {
        for (text, wants) in [
            ("\"30s\"", 30_000),
            ("\"250ms\"", 250),
            ("\"1h 30m\"", 5_400_000),
            ("\"5 minutes\"", 300_000),
            ("\"2d 1h\"", 176_400_000),
        ] {
            assert_eq!(read(text, "1").unwrap().time.0.as_millis(), wants, "{text}");
        }
        for (text, wants) in [
            ("\"64KiB\"", 65_536),
            ("65536", 65_536),
            ("\"1MiB\"", 1 << 20),
        ] {
            assert_eq!(read("\"1s\"", text).unwrap().size.0, wants, "{text}");
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        let units = read("\"90s\"", "\"1536KiB\"").unwrap();
        let text = toml::to_string(&units).unwrap();
        let again: Units = toml::from_str(&text).unwrap();
        assert_eq!((again.time, again.size), (units.time, units.size), "{text}");
    }

    #[test]
    fn a_bare_number_is_no_duration_and_nothing_is_negative() {
        for (time, size) in [
            ("30", "1"),
            ("\"-5s\"", "1"),
            ("\"soon\"", "1"),
            ("\"1s\"", "-1"),
        ] {
            assert!(read(time, size).is_err(), "{time} {size}");
        }
    }
}
