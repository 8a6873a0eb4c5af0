package org.spikingbrain.app;

import android.app.Notification;
import android.app.PendingIntent;
import android.app.Service;
import android.content.Intent;
import android.os.IBinder;
import android.os.PowerManager;

import org.spikingbrain.app.core.Engine;

/** Keeps the process, and a core, awake while something is computed; its notification can stop that. The work itself is the engine's. */
public final class GenerationService extends Service {
    private static final String CHANNEL = "generation";
    private static final String STOP = "org.spikingbrain.app.STOP";
    private static final int NOTIFICATION = 1;
    private static final long LONGEST_MS = 60 * 60 * 1000; // a forgotten lock empties no battery

    private PowerManager.WakeLock awake;

    private SampleApp app() {
        return (SampleApp) getApplication();
    }

    @Override
    public void onCreate() {
        super.onCreate();
        Newer.createChannel(this, CHANNEL, getString(R.string.app_name));
        awake = getSystemService(PowerManager.class).newWakeLock(PowerManager.PARTIAL_WAKE_LOCK, "spikingbrain:generation");
        awake.setReferenceCounted(false);
    }

    @Override
    public int onStartCommand(Intent intent, int flags, int startId) {
        startForeground(NOTIFICATION, notification()); // first, whatever is asked: Android ends an app that does not
        if (intent != null && STOP.equals(intent.getAction())) {
            app().engine().stop();
        }
        awake.acquire(LONGEST_MS);
        app().serviceStarted();
        return START_NOT_STICKY;
    }

    private Notification notification() {
        PendingIntent open = PendingIntent.getActivity(this, 0, new Intent(this, MainActivity.class), PendingIntent.FLAG_IMMUTABLE);
        PendingIntent stop = Newer.toForegroundService(this, 1, new Intent(this, GenerationService.class).setAction(STOP));
        boolean measuring = app().engine().state() == Engine.State.MEASURING;
        return Newer.notification(this, CHANNEL).setSmallIcon(R.drawable.ic_app).setContentTitle(getString(R.string.app_name))
            .setContentText(getString(measuring ? R.string.measuring : R.string.generating)).setContentIntent(open).setOngoing(true)
            .addAction(new Notification.Action.Builder(null, getString(R.string.stop), stop).build()).build();
    }

    @Override
    public void onDestroy() {
        awake.release();
        app().serviceGone();
        super.onDestroy();
    }

    @Override
    public IBinder onBind(Intent intent) {
        return null;
    }
}
