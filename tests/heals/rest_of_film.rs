//! A film of which some chunks have no good copy left: everything else of it is read all the same, and is what it was.

use vstack_types::VideoId;

use crate::{
    originals::Piece,
    reader::{Part, Reader},
    shared::Filled,
};

/// Everything of such a film but what is lost, read by a player's rules and hashed, over and over.
pub struct RestOfFilm {
    reader: Reader,
    film: VideoId,
    rest: Vec<(Part, Piece)>,
    lost: Vec<Part>,
    next: usize,
    /// So many pieces were read.
    pub read: usize,
}

impl RestOfFilm {
    /// All of `film` but these chunks, by their places in the manifest.
    pub fn of(filled: &Filled, film: &str, is_lost: impl Fn(usize) -> bool) -> Self {
        let is_lost = |part: Part| matches!(part, Part::Chunk(at) if is_lost(at));
        let parts = filled.original(film).parts().iter().cloned();
        let (lost, rest): (Vec<_>, Vec<_>) = parts.partition(|(part, _)| is_lost(*part));
        assert!(!lost.is_empty() && rest.len() > 1, "{} of {film} are lost", lost.len());
        Self {
            reader: Reader::start(&filled.cluster.url("metadata")),
            film: film.parse().unwrap(),
            rest,
            lost: lost.into_iter().map(|(part, _)| part).collect(),
            next: 0,
            read: 0,
        }
    }

    /// The next piece of it; behind the last comes the first.
    pub fn read_next(&mut self) {
        let (part, piece) = &self.rest[self.next];
        let got = self.reader.read(self.film, *part);
        let got =
            got.unwrap_or_else(|why| panic!("{part:?} of {} has a good copy, and was not given: {why}", self.film));
        assert!(
            piece.is(&got.bytes),
            "{part:?} of {} is another than was uploaded",
            self.film
        );
        self.next = (self.next + 1) % self.rest.len();
        self.read += 1;
    }

    /// Each piece once.
    pub fn read_all(&mut self) {
        for _ in 0..self.rest.len() {
            self.read_next();
        }
    }

    /// Of what is lost nothing is given, least of all what is not it.
    pub fn nothing_comes_of_what_is_lost(&mut self) {
        for part in &self.lost {
            let got = self.reader.read(self.film, *part);
            assert!(got.is_err(), "{part:?} of {} is lost, and came", self.film);
        }
    }
}
