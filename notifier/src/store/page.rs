//! Pages: so much of what there is as one answer may hold. Pure.

/// How many bytes a page holds, unless a single item is larger: what waits for a client by default
/// (`websocket.queue_size`). A result may have 256 KiB, so 200 of them would be 50 MiB.
pub const PAGE_BYTES: usize = 1024 * 1024;

/// Some of what there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T, N> {
    /// In the order of the question.
    pub items: Vec<T>,
    /// What is `before` in the question for the next page; `None` after the last.
    pub next: Option<N>,
}

impl<T, N> Page<T, N> {
    /// Nothing, and nothing after it.
    pub(super) fn empty() -> Self {
        Self {
            items: Vec::new(),
            next: None,
        }
    }
}

/// A page that is being filled.
#[derive(Debug)]
pub(super) struct Filling<T, N> {
    page: Page<T, N>,
    last: Option<N>,
    limit: u32,
    max_bytes: usize,
    bytes: usize,
}

impl<T, N> Filling<T, N> {
    /// An empty page for so many items, and so many bytes where there is more than one.
    pub(super) fn new(limit: u32, max_bytes: usize) -> Self {
        Self {
            page: Page::empty(),
            last: None,
            limit,
            max_bytes,
            bytes: 0,
        }
    }

    /// Adds an item of so many bytes; `false` if it is on the next page.
    pub(super) fn add(&mut self, place: N, item: T, bytes: usize) -> bool {
        self.bytes = self.bytes.saturating_add(bytes);
        let is_too_many = self.page.items.len() as u64 >= u64::from(self.limit);
        let is_too_much = self.bytes > self.max_bytes && self.last.is_some();
        if is_too_many || is_too_much {
            self.page.next = self.last.take();
            return false;
        }
        self.page.items.push(item);
        self.last = Some(place);
        true
    }

    /// With what was added.
    pub(super) fn page(self) -> Page<T, N> {
        self.page
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(limit: u32, max_bytes: usize, sizes: &[usize]) -> (usize, Option<usize>) {
        let mut filling = Filling::new(limit, max_bytes);
        let mut numbered = sizes.iter().enumerate();
        while let Some((n, size)) = numbered.next()
            && filling.add(n, (), *size)
        {}
        let page = filling.page();
        (page.items.len(), page.next)
    }

    #[test]
    fn a_page_ends_with_its_items_or_its_bytes_and_has_one_in_any_case() {
        for (limit, max_bytes, sizes, wants) in [
            (2, 10, &[][..], (0, None)),
            (2, 10, &[5, 5], (2, None)),
            (2, 10, &[5, 5, 0], (2, Some(1))),
            (9, 10, &[5, 6, 1], (1, Some(0))),
            (9, 10, &[99], (1, None)),
            (9, 10, &[99, 0], (1, Some(0))),
            (9, 0, &[0, 0, 1], (2, Some(1))),
            (0, 10, &[1], (0, None)),
        ] {
            assert_eq!(filled(limit, max_bytes, sizes), wants, "{limit} {sizes:?}");
        }
    }
}
