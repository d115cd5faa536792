/// The version that the program and the server tell.
package enum ProductVersion {
    package static let current = "0.2.0"
    /// What clients send as `User-Agent`.
    package static let userAgent = "martlet/" + current
}
