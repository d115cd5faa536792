// The C library under one name, whichever the platform has.
#if canImport(Darwin)
@_exported public import Darwin
#elseif canImport(Glibc)
@_exported public import Glibc
#elseif canImport(Musl)
@_exported public import Musl
#elseif canImport(Android)
@_exported public import Android
#endif

#if canImport(Darwin)
/// Darwin declares none; `fsync` does that and more.
public func fdatasync(_ descriptor: Int32) -> Int32 { fsync(descriptor) }
#endif
