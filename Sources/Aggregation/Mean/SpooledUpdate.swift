/// An accepted update on disk and its weight.
public struct SpooledUpdate: Sendable {
    /// The safetensors file.
    public var path: String
    /// Examples, or 1 when clients count alike.
    public var weight: Int

    /// Names a file and its weight.
    public init(path: String, weight: Int) {
        self.path = path
        self.weight = weight
    }
}
