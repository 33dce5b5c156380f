//! Going through two maps at once, past what they share.

use std::cmp::Ordering;
use std::slice::Iter;
use std::sync::Arc;

use super::piece::{Below, Child, Piece};

/// A place in a map.
struct Cursor<'a, K, V> {
    /// How far the entries are from the first piece.
    height: usize,
    /// What comes after, the nearest last.
    above: Vec<Iter<'a, Child<K, V>>>,
    /// The piece that is to come, if it has not been entered.
    piece: Option<&'a Arc<Piece<K, V>>>,
    /// Otherwise the entries that are to come; none at the end.
    entries: &'a [(K, V)],
}

impl<'a, K, V> Cursor<'a, K, V> {
    fn new(root: Option<&'a Arc<Piece<K, V>>>) -> Self {
        Self { height: root.map_or(0, |root| root.height()), above: Vec::new(), piece: root, entries: &[] }
    }

    /// The piece that is to come, and how far it is from the entries.
    fn next_piece(&self) -> Option<(&'a Arc<Piece<K, V>>, usize)> {
        Some((self.piece?, self.height - self.above.len()))
    }

    /// Goes down to what is in the piece that is to come.
    fn enter(&mut self) {
        let Some(piece) = self.piece.take() else { return };
        match &piece.below {
            Below::Entries(entries) => self.entries = entries,
            Below::Pieces(pieces) => {
                self.above.push(pieces.iter());
                self.leave();
            }
        }
    }

    /// Goes past what is to come of this piece.
    fn leave(&mut self) {
        self.piece = None;
        while let Some(next) = self.above.last_mut() {
            if let Some(child) = next.next() {
                self.piece = Some(&child.piece);
                return;
            }
            self.above.pop();
        }
    }

    /// Goes past an entry.
    fn step(&mut self) {
        self.entries = self.entries.split_first().map_or(&[], |(_, rest)| rest);
        if self.entries.is_empty() {
            self.leave();
        }
    }
}

/// The entries of one map that another has not, or not so.
pub(super) struct Differences<'a, K, V> {
    these: Cursor<'a, K, V>,
    others: Cursor<'a, K, V>,
}

impl<'a, K, V> Differences<'a, K, V> {
    pub(super) fn new(these: Option<&'a Arc<Piece<K, V>>>, others: Option<&'a Arc<Piece<K, V>>>) -> Self {
        Self { these: Cursor::new(these), others: Cursor::new(others) }
    }

    /// Goes past pieces that both have here, and down to entries where they have not.
    fn reach_entries(&mut self) {
        loop {
            match (self.these.next_piece(), self.others.next_piece()) {
                (Some((piece, _)), Some((other, _))) if Arc::ptr_eq(piece, other) => {
                    self.these.leave();
                    self.others.leave();
                }
                (Some((_, height)), Some((_, other))) => {
                    // The lower one may be in the higher one.
                    if height >= other {
                        self.these.enter();
                    }
                    if other >= height {
                        self.others.enter();
                    }
                }
                (Some(_), None) => self.these.enter(),
                (None, Some(_)) => self.others.enter(),
                (None, None) => return,
            }
        }
    }
}

impl<'a, K: Ord, V: PartialEq> Iterator for Differences<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            self.reach_entries();
            let (key, value) = self.these.entries.first()?;
            let other = self.others.entries.first();
            let order = other.map_or(Ordering::Less, |(other, _)| key.cmp(other));
            let same = order == Ordering::Equal && other.is_some_and(|(_, other)| value == other);
            if order != Ordering::Less {
                self.others.step();
            }
            if order != Ordering::Greater {
                self.these.step();
                if !same {
                    return Some((key, value));
                }
            }
        }
    }
}
