/// Memory of one thread that reads updates: slots for pieces of files, which grow to the largest piece and are used again.
package final class UpdateScratch {
    /// How many pieces are held at the same time: as many as the fold adds in one pass.
    package static let slotCount = 8

    private var values: [Space] = (0..<slotCount).map { _ in Space() }
    private var scales: [Space] = (0..<slotCount).map { _ in Space() }
    let rotation = UnsafeMutablePointer<Float>.allocate(capacity: UpdateEncoding.rotationBlock)

    /// Creates empty slots.
    package init() {}

    deinit {
        for space in values + scales { space.pointer?.deallocate() }
        rotation.deallocate()
    }

    func values(_ slot: Int, byteCount: Int) -> UnsafeMutableRawPointer { values[slot].reserve(byteCount) }

    func scales(_ slot: Int, byteCount: Int) -> UnsafeMutableRawPointer { scales[slot].reserve(byteCount) }

    private struct Space {
        var pointer: UnsafeMutableRawPointer?
        var byteCount = 0

        mutating func reserve(_ count: Int) -> UnsafeMutableRawPointer {
            if let pointer, count <= byteCount { return pointer }
            pointer?.deallocate()
            let space = UnsafeMutableRawPointer.allocate(byteCount: max(64, count), alignment: 64)
            pointer = space
            byteCount = max(64, count)
            return space
        }
    }
}
