//! The keys that tokens are checked with: each for one algorithm, found by `kid`. Pure.

use std::fmt;

use jsonwebtoken::{Algorithm, DecodingKey};

use super::claims::TokenError;

/// How many keys are tried on a token that names none: each costs a signature's check, and anybody
/// may send such tokens.
const MAX_TRIED: usize = 5;

/// A key, and what it may be used for.
pub(super) struct Key {
    pub(super) id: Option<String>,
    pub(super) algorithm: Algorithm,
    pub(super) material: DecodingKey,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("id", &self.id)
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

/// The keys to try on a token, in their order; never none.
///
/// A token that names a key is checked with that one alone. A name that nobody knows says nothing:
/// then, as without a name, those keys are tried that could have signed it.
pub(super) fn choose<'k>(
    configured: &'k [Key],
    fetched: &'k [Key],
    kid: Option<&str>,
    algorithm: Algorithm,
) -> Result<Vec<&'k Key>, TokenError> {
    let candidates: Vec<&Key> = match kid {
        None => configured.iter().chain(fetched).collect(),
        Some(kid) => {
            let named = |keys: &'k [Key]| {
                let has_id = |key: &&Key| key.id.as_deref() == Some(kid);
                keys.iter().filter(has_id).collect::<Vec<_>>()
            };
            // One after the other: an issuer cannot put a key beside one that stands in the
            // configuration.
            let mut found = named(configured);
            if found.is_empty() {
                found = named(fetched);
            }
            if found.is_empty() {
                let all = configured.iter().chain(fetched);
                found = all.filter(|key| key.id.is_none()).collect();
            }
            found
        }
    };
    if candidates.is_empty() {
        return Err(TokenError::UnknownKey);
    }
    let fitting = candidates.iter().filter(|key| key.algorithm == algorithm);
    let fitting: Vec<_> = fitting.copied().take(MAX_TRIED).collect();
    if fitting.is_empty() {
        return Err(TokenError::WrongAlgorithm {
            wanted: names(&candidates),
            found: format!("{algorithm:?}"),
        });
    }
    Ok(fitting)
}

/// Whether a key has this name.
pub(super) fn knows(keys: &[Key], kid: &str) -> bool {
    keys.iter().any(|key| key.id.as_deref() == Some(kid))
}

/// Each algorithm once.
fn names(keys: &[&Key]) -> String {
    let mut names: Vec<_> = keys
        .iter()
        .map(|key| format!("{:?}", key.algorithm))
        .collect();
    names.sort();
    names.dedup();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use Algorithm::{ES256, HS256, HS512, RS256};

    fn keys(all: &[(Option<&str>, Algorithm)]) -> Vec<Key> {
        let key = |(id, algorithm): &(Option<&str>, Algorithm)| Key {
            id: id.map(str::to_owned),
            algorithm: *algorithm,
            material: DecodingKey::from_secret(&[]),
        };
        all.iter().map(key).collect()
    }

    fn chosen(
        configured: &[Key],
        fetched: &[Key],
        kid: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<Vec<(Option<String>, Algorithm)>, TokenError> {
        let chosen = choose(configured, fetched, kid, algorithm)?;
        Ok(chosen
            .iter()
            .map(|key| (key.id.clone(), key.algorithm))
            .collect())
    }

    #[test]
    fn a_named_key_is_the_only_one_and_keeps_its_algorithm() {
        let own = keys(&[(Some("a"), HS256), (Some("b"), HS256)]);
        let theirs = keys(&[(Some("a"), RS256), (Some("c"), ES256)]);
        let choose = |kid, algorithm| chosen(&own, &theirs, Some(kid), algorithm);
        assert_eq!(choose("b", HS256), Ok(vec![(Some("b".into()), HS256)]));
        assert_eq!(choose("c", ES256), Ok(vec![(Some("c".into()), ES256)]));
        for (kid, algorithm, wants) in [("b", HS512, "HS256"), ("c", RS256, "ES256")] {
            let wanted = wants.to_owned();
            let found = format!("{algorithm:?}");
            let wrong = Err(TokenError::WrongAlgorithm { wanted, found });
            assert_eq!(choose(kid, algorithm), wrong);
        }
        // The issuer's key of the same name does not stand in for ours.
        assert!(choose("a", RS256).is_err());
        assert_eq!(choose("z", HS256), Err(TokenError::UnknownKey));
    }

    #[test]
    fn without_a_name_the_keys_of_the_algorithm_are_tried_but_not_for_ever() {
        let own = keys(&[(None, HS256), (Some("b"), HS256), (Some("c"), RS256)]);
        let both = vec![(None, HS256), (Some("b".to_owned()), HS256)];
        assert_eq!(chosen(&own, &[], None, HS256), Ok(both));
        // A key without a name takes tokens whatever they say, as it did when it was the only one.
        let nameless = Ok(vec![(None, HS256)]);
        assert_eq!(chosen(&own, &[], Some("z"), HS256), nameless);
        let many = keys(&[(Some("a"), RS256); 100]);
        let tried = chosen(&[], &many, None, RS256).unwrap();
        assert_eq!(tried.len(), MAX_TRIED);
        assert_eq!(chosen(&[], &[], None, RS256), Err(TokenError::UnknownKey));
    }
}
