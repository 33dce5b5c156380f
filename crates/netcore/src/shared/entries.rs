//! Going through the entries of a map.

use std::borrow::Borrow;
use std::slice::Iter;

use super::piece::{Below, Child, Piece, place, search};

/// The entries of a piece, in order.
pub(super) struct Entries<'a, K, V> {
    /// What comes after, the nearest last.
    above: Vec<Iter<'a, Child<K, V>>>,
    here: Iter<'a, (K, V)>,
}

impl<K, V> Clone for Entries<'_, K, V> {
    fn clone(&self) -> Self {
        Self { above: self.above.clone(), here: self.here.clone() }
    }
}

impl<'a, K, V> Entries<'a, K, V> {
    pub(super) fn of(root: Option<&'a Piece<K, V>>) -> Self {
        let mut entries = Self { above: Vec::new(), here: [].iter() };
        entries.enter(root, |_| 0, |_| 0);
        entries
    }

    /// Those from a key on.
    pub(super) fn from<Q: Ord + ?Sized>(root: Option<&'a Piece<K, V>>, key: &Q) -> Self
    where
        K: Borrow<Q>,
    {
        let mut entries = Self { above: Vec::new(), here: [].iter() };
        let entry = |all: &[(K, V)]| search(all, key).unwrap_or_else(|at| at);
        entries.enter(root, entry, |pieces| place(pieces, key));
        entries
    }

    /// Goes on within a piece, with the entry at a place in the piece at a place; what is behind them comes after.
    fn enter(
        &mut self,
        piece: Option<&'a Piece<K, V>>,
        entry_at: impl Fn(&[(K, V)]) -> usize,
        piece_at: impl Fn(&[Child<K, V>]) -> usize,
    ) {
        let mut next = piece;
        while let Some(piece) = next {
            next = match &piece.below {
                Below::Entries(all) => {
                    self.here = all[entry_at(all)..].iter();
                    None
                }
                Below::Pieces(pieces) => {
                    let mut pieces = pieces[piece_at(pieces)..].iter();
                    let first = pieces.next();
                    self.above.push(pieces);
                    first.map(|child| &*child.piece)
                }
            };
        }
    }
}

impl<'a, K, V> Iterator for Entries<'a, K, V> {
    type Item = &'a (K, V);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.here.next() {
                return Some(entry);
            }
            match self.above.last_mut()?.next() {
                Some(child) => self.enter(Some(&child.piece), |_| 0, |_| 0),
                None => drop(self.above.pop()),
            }
        }
    }
}
