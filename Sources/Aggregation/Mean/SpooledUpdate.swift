/// An accepted update on disk and its weight.
public struct SpooledUpdate: Sendable {
    /// The safetensors file.
    public var path: String
    /// Examples, or 1 when clients count alike.
    public var weight: Int
    /// Text that the update's content decides, such as its SHA-256: rules that are not sums go through updates in the order
    /// of it, so that their result does not depend on the order of arrival.
    public var contentID: String

    /// What every value is multiplied by, from 0 to 1, where the update is longer than it may be.
    public var factor: Double

    /// Names a file, its weight and its content; without a content the path stands for it.
    public init(path: String, weight: Int, contentID: String? = nil, factor: Double = 1) {
        precondition((0...1).contains(factor), "an update is made shorter, never longer")
        self.path = path
        self.weight = weight
        self.factor = factor
        self.contentID = contentID ?? path
    }
}
