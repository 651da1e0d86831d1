//! What strangers say, for a log or a screen.

use reqwest::Response;

use crate::alerts::markdown::is_hidden;

/// The beginning of a body, at most so many bytes.
///
/// # Errors
/// As the connection's.
pub(crate) async fn beginning(
    response: &mut Response,
    max_bytes: usize,
) -> Result<Vec<u8>, reqwest::Error> {
    let mut body = Vec::new();
    while body.len() < max_bytes
        && let Some(chunk) = response.chunk().await?
    {
        body.extend_from_slice(&chunk);
    }
    body.truncate(max_bytes);
    Ok(body)
}

/// A text as one line: what cannot be seen or turns its direction is left out.
pub(crate) fn line(text: &str) -> String {
    let line: String = text
        .chars()
        .map(|c| if c.is_whitespace() { ' ' } else { c })
        .filter(|c| !is_hidden(*c))
        .collect();
    line.trim().to_owned()
}
