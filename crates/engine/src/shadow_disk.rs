//! A disk that is read and never changed: what is written to it stays in memory, over what the disk below has.
//!
//! For looking at a data directory with the same code that opens it, although opening settles the end of the log and
//! mends heads. Nothing here knows what is written. Bytes written as they are already take no memory.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::{
    aligned::PAGE_LEN,
    disk::{Disk, DiskFile, Usage},
    superblock::PAGE,
};

/// Most memory for what is written: far more than the mending of a whole directory takes.
const PAGES_MAX: usize = (256 << 20) / PAGE_LEN;

type Names<F> = BTreeMap<String, Option<Arc<Body<F>>>>;

/// See the module.
pub struct ShadowDisk<D: Disk> {
    below: D,
    /// Files that were opened or made, and none for those that were removed.
    names: Mutex<Names<D::File>>,
    pages: Arc<AtomicUsize>,
}

/// A file of a [`ShadowDisk`].
pub struct ShadowFile<F>(Arc<Body<F>>);

struct Body<F> {
    below: Option<F>,
    layer: RwLock<Layer>,
    pages_of_disk: Arc<AtomicUsize>,
}

struct Layer {
    len: u64,
    /// Up to here the file below shows where no page is above it.
    below_to: u64,
    pages: BTreeMap<u64, Box<[u8]>>,
}

impl<D: Disk> ShadowDisk<D> {
    /// `below` as it is now.
    pub fn new(below: D) -> Self {
        Self {
            below,
            names: Mutex::default(),
            pages: Arc::default(),
        }
    }

    /// Everything is as the disk below has it again, for files opened from now on.
    pub fn forget_changes(&self) {
        self.names().clear();
    }

    fn names(&self) -> MutexGuard<'_, Names<D::File>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn body(&self, below: Option<D::File>) -> io::Result<Arc<Body<D::File>>> {
        let len = below.as_ref().map_or(Ok(0), DiskFile::size)?;
        Ok(Arc::new(Body {
            below,
            layer: RwLock::new(Layer {
                len,
                below_to: len,
                pages: BTreeMap::new(),
            }),
            pages_of_disk: Arc::clone(&self.pages),
        }))
    }

    fn find(&self, names: &mut Names<D::File>, name: &str) -> io::Result<Arc<Body<D::File>>> {
        match names.get(name) {
            Some(Some(body)) => Ok(Arc::clone(body)),
            Some(None) => Err(io::ErrorKind::NotFound.into()),
            None => {
                let body = self.body(Some(self.below.open(name)?))?;
                names.insert(name.to_owned(), Some(Arc::clone(&body)));
                Ok(body)
            }
        }
    }
}

impl<D: Disk> Disk for ShadowDisk<D> {
    type File = ShadowFile<D::File>;
    type Lock = D::Lock;

    fn lock(&self) -> io::Result<D::Lock> {
        self.below.lock()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let names = self.names();
        let mut list = self.below.list()?;
        list.retain(|name| !names.contains_key(name));
        list.extend(
            names
                .iter()
                .filter(|(_, body)| body.is_some())
                .map(|(name, _)| name.clone()),
        );
        list.sort_unstable();
        Ok(list)
    }

    fn open(&self, name: &str) -> io::Result<Self::File> {
        self.find(&mut self.names(), name).map(ShadowFile)
    }

    fn create(&self, name: &str) -> io::Result<Self::File> {
        let mut names = self.names();
        match self.find(&mut names, name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
            Ok(_) => return Err(io::ErrorKind::AlreadyExists.into()),
        }
        let body = self.body(None)?;
        names.insert(name.to_owned(), Some(Arc::clone(&body)));
        Ok(ShadowFile(body))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut names = self.names();
        let body = self.find(&mut names, from)?;
        names.insert(from.to_owned(), None);
        names.insert(to.to_owned(), Some(body));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut names = self.names();
        self.find(&mut names, name)?;
        names.insert(name.to_owned(), None);
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(())
    }

    fn reads_at_once(&self) -> usize {
        self.below.reads_at_once()
    }

    fn usage(&self) -> io::Result<Usage> {
        self.below.usage()
    }
}

impl<F: DiskFile> Body<F> {
    fn read(&self, layer: &Layer, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset + buffer.len() as u64;
        if end > layer.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let shown = layer.below_to.clamp(offset, end) - offset;
        let (shows, zeros) = buffer.split_at_mut(usize::try_from(shown).map_err(io::Error::other)?);
        if let Some(below) = self.below.as_ref().filter(|_| !shows.is_empty()) {
            below.read_at(shows, offset)?;
        }
        zeros.fill(0);
        for (number, page) in layer.pages.range(offset / PAGE..end.div_ceil(PAGE)) {
            let at = number * PAGE;
            let (from, to) = (at.max(offset), (at + PAGE).min(end));
            let part = |base: u64| usize::try_from(from - base).ok().zip(usize::try_from(to - base).ok());
            if let (Some((from, to)), Some((page_from, page_to))) = (part(offset), part(at)) {
                buffer[from..to].copy_from_slice(&page[page_from..page_to]);
            }
        }
        Ok(())
    }

    /// A page as it is read, with zeros behind the end.
    fn page(&self, layer: &Layer, number: u64) -> io::Result<Box<[u8]>> {
        let mut page = vec![0; PAGE_LEN].into_boxed_slice();
        let at = number * PAGE;
        let there = usize::try_from(layer.len.saturating_sub(at).min(PAGE)).map_err(io::Error::other)?;
        self.read(layer, &mut page[..there], at)?;
        Ok(page)
    }

    fn put(&self, layer: &mut Layer, number: u64, page: Box<[u8]>) -> io::Result<()> {
        if !layer.pages.contains_key(&number) && self.pages_of_disk.fetch_add(1, Ordering::Relaxed) >= PAGES_MAX {
            self.pages_of_disk.fetch_sub(1, Ordering::Relaxed);
            return Err(io::ErrorKind::StorageFull.into());
        }
        layer.pages.insert(number, page);
        Ok(())
    }

    fn set_len(&self, layer: &mut Layer, len: u64) {
        layer.len = len;
        layer.below_to = layer.below_to.min(len);
        let cut = layer.pages.split_off(&len.div_ceil(PAGE));
        self.pages_of_disk.fetch_sub(cut.len(), Ordering::Relaxed);
        if let (Some(page), Ok(within)) = (layer.pages.get_mut(&(len / PAGE)), usize::try_from(len % PAGE)) {
            page[within..].fill(0);
        }
    }
}

impl<F> Drop for Body<F> {
    fn drop(&mut self) {
        let layer = self.layer.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.pages_of_disk.fetch_sub(layer.pages.len(), Ordering::Relaxed);
    }
}

impl<F> ShadowFile<F> {
    fn layer(&self) -> std::sync::RwLockReadGuard<'_, Layer> {
        self.0.layer.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn layer_mut(&self) -> std::sync::RwLockWriteGuard<'_, Layer> {
        self.0.layer.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F: DiskFile> DiskFile for ShadowFile<F> {
    fn size(&self) -> io::Result<u64> {
        Ok(self.layer().len)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read(&self.layer(), buffer, offset)
    }

    fn read_medium_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let layer = self.layer();
        let end = offset + buffer.len() as u64;
        let is_covered = layer.pages.range(offset / PAGE..end.div_ceil(PAGE)).next().is_some();
        match &self.0.below {
            Some(below) if !is_covered && end <= layer.below_to => below.read_medium_at(buffer, offset),
            _ => self.0.read(&layer, buffer, offset),
        }
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut layer = self.layer_mut();
        let end = offset + bytes.len() as u64;
        let mut at = offset;
        layer.len = layer.len.max(end);
        while at < end {
            let number = at / PAGE;
            let to = (number * PAGE + PAGE).min(end);
            let old = self.0.page(&layer, number)?;
            let mut new = old.clone();
            let within = |position: u64, base: u64| usize::try_from(position - base).map_err(io::Error::other);
            let (from, until) = (within(at, number * PAGE)?, within(to, number * PAGE)?);
            new[from..until].copy_from_slice(&bytes[within(at, offset)?..within(to, offset)?]);
            if new != old {
                self.0.put(&mut layer, number, new)?;
            }
            at = to;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(&mut self.layer_mut(), len);
        Ok(())
    }

    fn preallocate(&self, len: u64) -> io::Result<()> {
        let mut layer = self.layer_mut();
        layer.len = layer.len.max(len);
        Ok(())
    }

    fn data_from(&self, from: u64) -> io::Result<Option<u64>> {
        let layer = self.layer();
        let shown = match &self.0.below {
            Some(below) if from < layer.below_to => below.data_from(from)?.filter(|at| *at < layer.below_to),
            _ => None,
        };
        let above = layer.pages.range(from / PAGE..).next();
        let above = above
            .map(|(number, _)| from.max(number * PAGE))
            .filter(|at| *at < layer.len);
        Ok(shown.into_iter().chain(above).min())
    }

    fn allocated(&self) -> io::Result<u64> {
        match &self.0.below {
            Some(below) => below.allocated(),
            None => Ok(self.layer().pages.len() as u64 * PAGE),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
}
