//! Values as Python writes them: what Celery's events carry for arguments and results. Pure.

use bellhop_common::wire::cut;
use serde_json::Value;

/// As much as Celery shows of a value.
const MAX_BYTES: usize = 1024;

/// A value as a Python literal.
pub(super) fn literal(value: &Value) -> String {
    let mut text = String::new();
    write(&mut text, value);
    shortened(text)
}

/// A job's arguments as Celery tells them: the positional ones as a tuple, the others as a dict.
pub(super) fn arguments(args: &Value) -> (String, String) {
    let (mut tuple, mut others) = (String::new(), String::new());
    let positional = match args {
        Value::Object(fields) => {
            let list = fields.get("args").and_then(Value::as_array);
            let rest = fields.iter();
            dict(
                &mut others,
                rest.filter(|(name, _)| list.is_none() || *name != "args"),
            );
            list.map_or(&[][..], Vec::as_slice)
        }
        other => {
            others.push_str("{}");
            std::slice::from_ref(other)
        }
    };
    list(&mut tuple, '(', positional, ')');
    if positional.len() == 1 {
        // A tuple of one.
        tuple.insert(tuple.len() - 1, ',');
    }
    (shortened(tuple), shortened(others))
}

fn shortened(text: String) -> String {
    match cut(&text, MAX_BYTES) {
        whole if whole.len() == text.len() => text,
        part => format!("{part}..."),
    }
}

fn write(text: &mut String, value: &Value) {
    // A value of 100 MiB is not written out for 1 KiB of it.
    if text.len() > MAX_BYTES {
        return;
    }
    match value {
        Value::Null => text.push_str("None"),
        Value::Bool(true) => text.push_str("True"),
        Value::Bool(false) => text.push_str("False"),
        Value::Number(number) => text.push_str(&number.to_string()),
        Value::String(string) => quoted(text, string),
        Value::Array(values) => list(text, '[', values, ']'),
        Value::Object(fields) => dict(text, fields),
    }
}

fn dict<'a>(text: &mut String, fields: impl IntoIterator<Item = (&'a String, &'a Value)>) {
    text.push('{');
    for (n, (name, value)) in fields.into_iter().enumerate() {
        if n > 0 {
            text.push_str(", ");
        }
        quoted(text, name);
        text.push_str(": ");
        write(text, value);
        if text.len() > MAX_BYTES {
            break;
        }
    }
    text.push('}');
}

fn list(text: &mut String, open: char, values: &[Value], close: char) {
    text.push(open);
    for (n, value) in values.iter().enumerate() {
        if n > 0 {
            text.push_str(", ");
        }
        write(text, value);
        if text.len() > MAX_BYTES {
            break;
        }
    }
    text.push(close);
}

fn quoted(text: &mut String, string: &str) {
    text.push('\'');
    for character in cut(string, MAX_BYTES + 1).chars() {
        match character {
            '\'' => text.push_str("\\'"),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            '\0' => text.push_str("\\x00"),
            other => text.push(other),
        }
    }
    text.push('\'');
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_python() {
        let value = json!({"a": [1, -2.5, null], "b": true, "it's": "a\\\n"});
        assert_eq!(
            literal(&value),
            r"{'a': [1, -2.5, None], 'b': True, 'it\'s': 'a\\\n'}"
        );
    }

    #[test]
    fn arguments_are_a_tuple_and_a_dict() {
        for (args, positional, keywords) in [
            (json!({}), "()", "{}"),
            (json!({"a": 1}), "()", "{'a': 1}"),
            (json!({"args": [1], "b": 2}), "(1,)", "{'b': 2}"),
            (json!({"args": [1, "x"]}), "(1, 'x')", "{}"),
            (json!({"args": 5}), "()", "{'args': 5}"),
            (json!("all"), "('all',)", "{}"),
        ] {
            let expected = (positional.to_owned(), keywords.to_owned());
            assert_eq!(arguments(&args), expected, "{args}");
        }
    }

    #[test]
    fn long_values_are_cut() {
        for value in [json!("ü".repeat(5000)), json!(vec![7; 100_000])] {
            let text = literal(&value);
            assert!(text.len() <= MAX_BYTES + 3 && text.ends_with("..."));
        }
    }
}
