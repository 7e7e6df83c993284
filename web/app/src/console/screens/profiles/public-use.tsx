export function PublicUse({ allowed }: { allowed: boolean }) {
  return allowed ? (
    <span class="state ok">
      <span aria-hidden="true">●</span> public use
    </span>
  ) : (
    <span class="state">
      <span aria-hidden="true">○</span> members only
    </span>
  );
}
