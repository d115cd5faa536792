/// Scratch memory of a layer, which grows with the largest batch and is used again by the next one.
///
/// Not `Sendable`: one network owns it.
package final class Workspace<Value: Scalar> {
    private(set) var base: UnsafeMutablePointer<Value>
    private var capacity: Int

    package init() {
        base = .allocate(capacity: 1)
        base.initialize(to: 0)
        capacity = 1
    }

    deinit { base.deallocate() }

    /// Room for at least `count` values, whose content is undefined.
    @discardableResult
    func reserve(_ count: Int) -> UnsafeMutablePointer<Value> {
        if count > capacity {
            base.deallocate()
            base = .allocate(capacity: count)
            base.initialize(repeating: 0, count: count)
            capacity = count
        }
        return base
    }

    /// Room for `count` zeros.
    func zeros(_ count: Int) -> UnsafeMutablePointer<Value> {
        Value.clear(reserve(count), count: count)
        return base
    }
}
