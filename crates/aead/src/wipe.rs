//! A box whose content is overwritten when it is dropped.
//!
//! `ring`'s keys are plain data without a destructor of their own, so they would stay in freed memory. The box gives the
//! value one place on the heap for its whole life and overwrites that place at the end. A transient copy on the stack of the
//! function that made the value is outside its reach.

use std::{
    mem::ManuallyDrop,
    ops::{Deref, DerefMut},
    sync::atomic::{Ordering, compiler_fence},
};

/// A boxed value that is wiped on drop.
pub(crate) struct Wiped<T>(Box<ManuallyDrop<T>>);

impl<T> Wiped<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Box::new(ManuallyDrop::new(value)))
    }
}

impl<T> Deref for Wiped<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Wiped<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T> Wiped<T> {
    /// Ends the value and overwrites its bytes.
    ///
    /// # Safety
    /// To be called once, and the value not to be used afterwards.
    unsafe fn wipe(&mut self) {
        // SAFETY: the caller promises that this is the value's end. The pointer is valid for size_of::<T>() bytes of
        // writes, because ManuallyDrop<T> has T's layout and what is in it has just been dropped.
        unsafe {
            ManuallyDrop::drop(&mut self.0);
            zeroize::zeroize_flat_type((&mut *self.0 as *mut ManuallyDrop<T>).cast::<T>());
        }
    }
}

impl<T> Drop for Wiped<T> {
    fn drop(&mut self) {
        // SAFETY: a destructor runs once and last; freeing a box of ManuallyDrop<T> runs no destructor of T.
        unsafe { self.wipe() }
    }
}

/// Overwrites a value with zeros, by whole words.
///
/// # Safety
/// Zeros must be valid for all of it, it must have no gaps, and its size must be a whole number of its alignment's words of 16 bytes.
#[inline]
pub(crate) unsafe fn overwrite<T>(value: &mut T) {
    const {
        assert!(size_of::<T>().is_multiple_of(size_of::<u128>()) && align_of::<T>() >= align_of::<u128>());
    }
    let words = std::ptr::from_mut(value).cast::<u128>();
    for i in 0..size_of::<T>() / size_of::<u128>() {
        // SAFETY: i is below the size in words, the value is aligned to a word, and the caller promises that zeros are valid.
        // Volatile, so that the writes are not left out for lack of a reader.
        unsafe { words.add(i).write_volatile(0) };
    }
    compiler_fence(Ordering::SeqCst);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_gone_after_the_wipe() {
        let mut wiped = ManuallyDrop::new(Wiped::new([0xA5u8; 64]));
        assert_eq!(**wiped, [0xA5; 64]);
        // SAFETY: called once; the array has no destructor and any bytes are valid for it, so that it may be looked at.
        unsafe { wiped.wipe() };
        assert_eq!(**wiped, [0; 64]);
    }
}
