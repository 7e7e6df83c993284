/** The last cell of a profile's row: what may be done with it. */
export function ProfileActions({ name, onChange, onDelete }: { name: string; onChange(): void; onDelete(): void }) {
  return (
    <td class="n">
      <span class="actions">
        <button type="button" class="small" aria-label={`Change ${name}`} onClick={onChange}>
          Change
        </button>
        <button type="button" class="small danger" aria-label={`Delete ${name}`} onClick={onDelete}>
          Delete
        </button>
      </span>
    </td>
  );
}
