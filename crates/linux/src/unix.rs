//! The UNIX socket of the configuration protocol: made so that only its owner may use it and only one daemon has it.
//!
//! A socket file outlives a daemon that was killed. So a file that is in the way is dialled: who answers keeps it, and if nobody
//! does it is unlinked. Two daemons that start at once would unlink each other's, so all this happens under a lock of the folder.
//!
//! When the file is deleted, or replaced, the daemon is to end: that is how `wg-quick down` and people stop a userspace
//! implementation. [`DeletionWatch`] reports it.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::steward;

use rustix::fs::{CWD, FlockOperation, Mode, RenameFlags, flock, inotify, renameat_with};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// Where the sockets of all userspace implementations are.
pub const FOLDER: &str = "/var/run/wireguard";

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 64;

/// The socket of an interface.
pub fn socket_path(interface: &str) -> PathBuf {
    Path::new(FOLDER).join(format!("{interface}.sock"))
}

/// Why the socket could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody answers on it.
    #[error("{0} is in use by a running daemon")]
    InUse(PathBuf),
    /// There is a file of that name which is no socket.
    #[error("{0} exists and is not a socket: remove it if it is not needed")]
    NotASocket(PathBuf),
    /// A system call failed.
    #[error("{what} {path} failed")]
    Os {
        /// What was attempted.
        what: &'static str,
        /// With which path.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

/// A listening socket, whose file is unlinked on drop if it is still the same.
#[derive(Debug)]
pub struct Listener {
    listener: UnixListener,
    file: Option<SocketFile>,
    stays: Stays,
}

/// Whether the file of a listening socket stays when that is dropped, since somebody else has the socket too. It begins with no.
#[derive(Clone, Debug, Default)]
pub struct Stays(Arc<AtomicBool>);

impl Stays {
    /// Says so.
    pub fn set(&self, stays: bool) {
        self.0.store(stays, Ordering::Relaxed);
    }
}

/// The file of a socket, by which it is known again: device and inode.
#[derive(Clone, Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    id: (u64, u64),
}

impl SocketFile {
    /// ENOTSOCK for a file of another kind.
    pub(crate) fn new(path: PathBuf) -> io::Result<SocketFile> {
        let meta = std::fs::symlink_metadata(&path)?;
        if !meta.file_type().is_socket() {
            return Err(Errno::NOTSOCK.into());
        }
        Ok(SocketFile { path, id: (meta.dev(), meta.ino()) })
    }

    /// Whether the path still leads to it. Deleted and replaced are the same; an error counts as neither.
    fn is_there(&self) -> bool {
        match std::fs::symlink_metadata(&self.path) {
            Ok(meta) => (meta.dev(), meta.ino()) == self.id,
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        }
    }

    /// Whether the path leads to something else by now.
    pub(crate) fn is_replaced(&self) -> bool {
        std::fs::symlink_metadata(&self.path).is_ok_and(|meta| (meta.dev(), meta.ino()) != self.id)
    }

    /// Gives it its name without what follows the last dot, in the place of whatever has that.
    pub(crate) fn put_in_place(&mut self) -> io::Result<()> {
        let to = self.path.with_extension("");
        if !self.is_there() {
            return Err(io::ErrorKind::NotFound.into());
        }
        // Of the calls that rename the one that all architectures have.
        renameat_with(CWD, &self.path, CWD, &to, RenameFlags::empty())?;
        self.path = to;
        Ok(())
    }

    /// Removes it, if it is still there.
    pub(crate) fn remove(&self) {
        if self.is_there() {
            // Somebody else may have removed it just now.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Listener {
    /// Listens at the path, of which the folder is made (0755) if it is missing. The socket is for its owner only (0700).
    pub fn bind(path: &Path) -> Result<Listener, ListenError> {
        Listener::bind_as(path, 0o700)
    }

    /// The same with these rights, of which the umask takes away what it does of any file's.
    pub fn bind_as(path: &Path, mode: u32) -> Result<Listener, ListenError> {
        let os = |what: &'static str, path: &Path| {
            let path = path.to_owned();
            move |source: io::Error| ListenError::Os { what, path, source }
        };
        let folder = folder_of(path);
        make_folder(folder).map_err(os("making the folder", folder))?;
        let _lock = lock(folder)?;
        clear(path)?;
        let socket = bind(path, Mode::from_raw_mode(mode)).map_err(os("listening at", path))?;
        // Before anybody is answered there, and may think that it is up and take the file away.
        let file = SocketFile::new(path.to_owned()).map_err(os("looking at", path))?;
        rustix::net::listen(&socket, BACKLOG).map_err(|error| os("listening at", path)(error.into()))?;
        let listener = UnixListener::from(socket);
        Ok(Listener { listener, file: Some(file), stays: Stays::default() })
    }

    /// Takes over a listening socket that was inherited (`WG_UAPI_FD`), and with it the care for its file, if it has one.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Listener> {
        if !rustix::net::sockopt::socket_acceptconn(&fd)? {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let listener = UnixListener::from(fd);
        // Fails for a socket of another family.
        let address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        // Callers are told which process listened last. That is us from here on, and not whoever made the socket and may have gone.
        rustix::net::listen(&listener, BACKLOG)?;
        // A file that has gone, or a name that is relative to somebody else's folder, is nobody's to watch.
        let path = address.as_pathname().filter(|path| path.is_absolute());
        let file = path.and_then(|path| SocketFile::new(path.to_owned()).ok());
        Ok(Listener { listener, file, stays: Stays::default() })
    }

    /// The next connection, in blocking mode. `WouldBlock` when there is none.
    pub fn accept(&self) -> io::Result<UnixStream> {
        let (stream, _) = self.listener.accept()?;
        Ok(stream)
    }

    /// The socket alone, which somebody else may listen on. Its file stays.
    pub fn into_fd(self) -> io::Result<OwnedFd> {
        self.stays.set(true);
        Ok(self.listener.try_clone()?.into())
    }

    /// What becomes of its file, to be told from elsewhere.
    pub fn stays(&self) -> Stays {
        self.stays.clone()
    }

    /// Where it listens; `None` when it was inherited without a file.
    pub fn path(&self) -> Option<&Path> {
        self.file.as_ref().map(|f| f.path.as_path())
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if self.stays.0.load(Ordering::Relaxed) {
            return;
        }
        steward::remove_entrusted();
        // There is no steward, or the start failed before it was entrusted with the file.
        self.file.iter().for_each(SocketFile::remove);
    }
}

/// Removes the socket at this path, if there is one and nobody listens there any more.
///
/// # Errors
/// Something else is there, or it cannot be removed.
pub fn remove_dead(path: &Path) -> Result<(), ListenError> {
    // Whoever makes a socket there has the lock until it listens.
    let _lock = lock(folder_of(path))?;
    match clear(path) {
        Err(ListenError::InUse(_)) => Ok(()),
        cleared => cleared,
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

/// The right to make and remove sockets in a folder, for as long as the file is open.
fn lock(folder: &Path) -> Result<File, ListenError> {
    let failed = |what| move |source| ListenError::Os { what, path: folder.to_owned(), source };
    let lock = File::open(folder).map_err(failed("opening the folder"))?;
    flock(&lock, FlockOperation::LockExclusive).map_err(|error| failed("locking the folder")(error.into()))?;
    Ok(lock)
}

/// The process that was the last to listen on the socket at the other end, by its number here; `None` where it has none.
pub fn peer_process(stream: &UnixStream) -> Option<u32> {
    let mut told = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut len = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes, which is what `told` has; zero stands for a process of another namespace.
    let done = unsafe {
        libc::getsockopt(stream.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEERCRED, (&raw mut told).cast(), &mut len)
    };
    u32::try_from(told.pid).ok().filter(|pid| done == 0 && *pid != 0)
}

fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
    // The process's umask may have taken some away.
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))
}

/// Makes way at the path: removes a socket at which nobody answers.
fn clear(path: &Path) -> Result<(), ListenError> {
    let os = |what: &'static str| {
        let path = path.to_owned();
        move |source: io::Error| ListenError::Os { what, path, source }
    };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(os("looking at")(error)),
        Ok(meta) if !meta.file_type().is_socket() => {
            return Err(ListenError::NotASocket(path.to_owned()));
        }
        Ok(_) => (),
    }
    match dial(path) {
        Err(Errno::CONNREFUSED) => match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(os("removing")(error)),
            _ => Ok(()),
        },
        Err(Errno::NOENT) => Ok(()),
        // EAGAIN: it has more callers than it accepts, which makes it a daemon that runs.
        Ok(()) | Err(Errno::AGAIN) => Err(ListenError::InUse(path.to_owned())),
        Err(error) => Err(os("dialling")(error.into())),
    }
}

fn dial(path: &Path) -> Result<(), Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)
}

/// A socket at the path, which does not listen yet.
fn bind(path: &Path, mode: Mode) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // The file gets the mode of the socket at the time of binding, less the umask. So it is private from the first moment,
    // without a change of the umask, which would be the whole process's.
    rustix::fs::fchmod(&socket, mode)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

/// Tells when the file of a listening socket is deleted or replaced. Poll its descriptor, then ask.
#[derive(Debug)]
pub struct DeletionWatch {
    inotify: OwnedFd,
    file: Option<SocketFile>,
}

impl DeletionWatch {
    /// Watches the listener's file. Where there is none, the watch never fires.
    pub fn new(listener: &Listener) -> io::Result<DeletionWatch> {
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let inotify = inotify::init(flags)?;
        if let Some(file) = &listener.file {
            // A bound socket keeps its inode alive, so that deletion shows as a change of its link count.
            let what = inotify::WatchFlags::ATTRIB | inotify::WatchFlags::DELETE_SELF | inotify::WatchFlags::MOVE_SELF;
            match inotify::add_watch(&inotify, &file.path, what) {
                // Gone already: `deleted` will say so.
                Ok(_) | Err(Errno::NOENT) => (),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(DeletionWatch { inotify, file: listener.file.clone() })
    }

    /// Whether the file has been deleted or replaced. Makes the descriptor unreadable again.
    pub fn deleted(&self) -> bool {
        let mut events = [0u8; 4096];
        while rustix::io::read(&self.inotify, &mut events).is_ok_and(|len| len > 0) {}
        self.file.as_ref().is_some_and(|file| !file.is_there())
    }
}

impl AsFd for DeletionWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}
