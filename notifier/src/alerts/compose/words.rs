//! Words of a post. Pure.

use jiff::SignedDuration;

use super::SHORT_MAX;
use crate::alerts::markdown::line;

/// A label for people.
pub(super) fn caption(name: &str) -> String {
    match name {
        "kind" => "Task".to_owned(),
        "user_id" => "Owner".to_owned(),
        "error_code" => "Error".to_owned(),
        "channel" => "Channel".to_owned(),
        "fingerprint" => "Alert".to_owned(),
        other => line(other, SHORT_MAX),
    }
}

/// A template with the labels in their places.
pub(super) fn filled(template: &str, labels: &[(String, String)]) -> String {
    let mut filled = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        filled.push_str(before);
        let known = after.split_once('}').and_then(|(name, after)| {
            let (_, value) = labels.iter().find(|(label, _)| label == name)?;
            Some((value, after))
        });
        rest = after;
        if let Some((value, after)) = known {
            filled.push_str(value);
            rest = after;
        } else {
            filled.push('{');
        }
    }
    filled.push_str(rest);
    filled
}

/// A time span in its two largest units.
pub(super) fn lasting(span: SignedDuration) -> String {
    let seconds = span.as_secs().max(0);
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    let units = [
        (days, "d"),
        (hours, "h"),
        (minutes, "min"),
        (seconds % 60, "s"),
    ];
    let units = units
        .into_iter()
        .skip_while(|(number, _)| *number == 0)
        .take(2);
    let shown: Vec<String> = units
        .filter(|(number, _)| *number > 0)
        .map(|(number, unit)| format!("{number} {unit}"))
        .collect();
    if shown.is_empty() {
        return "0 s".to_owned();
    }
    shown.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_of_time_are_short() {
        for (seconds, wants) in [
            (0, "0 s"),
            (59, "59 s"),
            (720, "12 min"),
            (3_660, "1 h 1 min"),
            (90_000, "1 d 1 h"),
            (86_400, "1 d"),
        ] {
            assert_eq!(lasting(SignedDuration::from_secs(seconds)), wants);
        }
        assert_eq!(lasting(SignedDuration::from_secs(-5)), "0 s");
    }
}
