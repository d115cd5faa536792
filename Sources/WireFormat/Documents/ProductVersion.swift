/// The version that the program and the server tell.
package enum ProductVersion {
    package static let current = "0.1.0"
}
